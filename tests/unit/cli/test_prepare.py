"""The command `vlmcollate prepare`."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from vlmcollate import collator_for
from vlmcollate.cli.app import app
from vlmcollate.cli.prepare_progress import progress_bar
from vlmcollate.data import PreparedDataset, Progress
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


def test_the_standard_input_is_a_stream(folder):
    rows = (folder / "data" / "chats.jsonl").read_bytes()
    command = [
        "prepare",
        "processor",
        "-",
        "-o",
        "out",
        "--media-root",
        "data",
        "--on-error",
        "skip",
    ]
    result = CliRunner().invoke(app, command, input=rows)
    assert result.exit_code == 0, result.output
    assert "3 rows in out" in result.stdout
    again = CliRunner().invoke(app, command, input=rows)
    assert (again.exit_code, "3 rows in out" in again.stdout) == (0, True)
    changed = CliRunner().invoke(app, command, input=rows.replace(b"Yes", b"No"))
    assert "may be of other rows: rows 0 to 3 of the stream differ" in changed.stderr


def progress(**options):
    return Progress(**{"done": 0, "total": 9, "dropped": 0, "resumed": 0, **options})


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_names_rows_that_are_skipped(is_terminal, monkeypatch):
    monkeypatch.setattr("vlmcollate.cli.prepare_progress._SECONDS_PER_LINE", 0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, width=120)
    states = []
    with progress_bar(console) as bar:
        for report in (
            progress(done=3, resumed=3, skipping=True),
            progress(done=6, resumed=6, dropped=1, skipping=True),
            progress(done=7, resumed=6, dropped=1),
            progress(done=9, resumed=6, dropped=2, total=None),
        ):
            bar.show(report)
            if is_terminal:
                bar._bar.refresh()
            states.append(shown.getvalue())
            shown.truncate(0)
            shown.seek(0)
    skipping = ["skipping the rows of complete shards" in state for state in states]
    assert skipping == [True, True, False, False]
    if not is_terminal:
        assert states == [
            "skipping the rows of complete shards 3/9, 0 dropped\n",
            "skipping the rows of complete shards 6/9, 1 dropped\n",
            "samples 7/9, 1 dropped\n",
            "samples 9, 2 dropped\n",
        ]
