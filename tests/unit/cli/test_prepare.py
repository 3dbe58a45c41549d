"""The command `vlmcollate prepare`."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from vlmcollate import collator_for
from vlmcollate.cli.app import app
from vlmcollate.data import PreparedDataset
from vlmcollate.testing import tiny_processor


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    tiny_processor().save_pretrained(tmp_path / "processor")
    (tmp_path / "data").mkdir()
    Image.new("RGB", (60, 60), "teal").save(tmp_path / "data" / "a.png")
    image = {"type": "image", "image": "a.png"}
    chats = [
        [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}]
        for content in ([image], "What? " * 50, "Hi")
    ]
    lines = [json.dumps({"messages": messages}) for messages in chats]
    (tmp_path / "data" / "chats.jsonl").write_text("\n".join([*lines, "{"]))
    return tmp_path


def prepare(*options):
    arguments = ["prepare", "processor", "data/chats.jsonl", "-o", "out", "--media-root", "data"]
    return CliRunner().invoke(app, [*arguments, *options])


def test_the_dataset_is_read_without_the_options_of_the_command(folder):
    options = ["--max-length", "60", "--on-overlong", "drop"]
    failed = prepare(*options)
    assert failed.exit_code == 1
    assert "chats.jsonl, row 3: the row is no JSON" in " ".join(failed.stderr.split())
    result = prepare(*options, "--on-error", "skip")
    assert result.exit_code == 0, result.stderr
    assert "4/4" in result.stdout
    assert "2 dropped" in result.stdout
    assert "2 rows in out" in result.stdout
    assert "2 rejected rows with their reasons in out/rejected.jsonl" in result.stdout
    assert len((folder / "out" / "rejected.jsonl").read_text().splitlines()) == 2
    assert len(PreparedDataset(folder / "out", collator_for(tiny_processor()))) == 2
    packed = prepare("--max-length", "60", "--on-overlong", "drop", "--packing")
    assert "begun with other options: packing" in " ".join(packed.stderr.split())


def test_an_error_is_all_that_is_shown(folder):
    (folder / "data" / "chats.jsonl").write_text("")
    result = prepare()
    assert result.exit_code == 1
    assert "0/" not in result.stdout
    assert result.stderr.strip() == "error: data/chats.jsonl: no rows"
    result = CliRunner().invoke(app, ["stats", "processor", "data/chats.jsonl"])
    assert result.stderr.strip() == "error: data/chats.jsonl: no rows"
