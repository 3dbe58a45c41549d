"""A folder with a processor and a dataset, and the commands run on it."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.unit.cli.conversations import chat
from vlmcollate.cli.app import app
from vlmcollate.testing import tiny_processor


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    tiny_processor().save_pretrained(path / "processor")
    image = {"type": "image", "image": "a.png"}
    (path / "media").mkdir()
    Image.new("RGB", (112, 84)).save(path / "media" / "a.png")
    rows = [
        {"messages": chat([image, {"type": "text", "text": "What?"}], "Black.")},
        {"messages": chat("Say yes.<|im_end|>", "yes")},
        {"messages": []},
        {"messages": chat("Yes?", "Yes, yes.")},
    ]
    (path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def run(data_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def ran(command, *options):
        arguments = [
            command,
            str(data_folder / "processor"),
            str(data_folder / "rows.jsonl"),
            *options,
        ]
        return CliRunner().invoke(app, [*arguments, "--media-root", str(data_folder / "media")])

    return ran
