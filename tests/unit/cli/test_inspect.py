"""The command `vlmcollate inspect`."""

from __future__ import annotations

import base64
import io
import json

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tests.processors.published_templates import processor_with
from tests.unit.cli.conversations import chat
from vlmcollate import ConfigError, collator_for
from vlmcollate.cli import terminal
from vlmcollate.cli.app import app
from vlmcollate.cli.inspection import InspectedRow
from vlmcollate.cli.inspection_output import print_rows
from vlmcollate.explain.page import inspect_page, page_entry, thumbnail
from vlmcollate.testing import tiny_processor


@pytest.fixture
def terminal_output(monkeypatch):
    """Rich writes as it does on a terminal without colour."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


@pytest.mark.usefixtures("terminal_output")
def test_inspect_shows_masks_errors_and_warnings(run):
    result = run("inspect")
    assert result.exit_code == 1
    assert "<image 1: 12 tokens>" in result.stdout
    assert "[[Black.<|im_end|>]]" in result.stdout
    assert "! messages[0] spells <|im_end|>, which was encoded as plain text" in result.stdout
    assert "error: messages: expected at least one message, found none" in result.stdout
    assert "[[Yes, yes.<|im_end|>]]" in result.stdout
    assert "format messages; labels by RenderedSpanLabels; ms: read " in result.stdout
    assert "1 of 4 rows failed" in result.stderr


def test_piped_rows_are_one_record_a_line(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    result = run("inspect")
    header, *records = (line.split("\t") for line in result.stdout.splitlines())
    rows = [dict(zip(header, record, strict=True)) for record in records]
    assert [row["row"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["media"] == "image 112 x 84: 12"
    assert rows[0]["text"].endswith("<|im_start|>assistant↵[[Black.<|im_end|>]]↵")
    assert rows[1]["notes"] == "messages[0] spells <|im_end|>, which was encoded as plain text"
    assert rows[2]["notes"] == "error: messages: expected at least one message, found none"
    assert (rows[3]["format"], rows[3]["labels"]) == ("messages", "RenderedSpanLabels")
    assert int(rows[3]["trained"]) < int(rows[3]["tokens"])
    assert "1 of 4 rows failed" in result.stderr
    assert "\x1b" not in result.output


def test_json_has_one_object_a_line(run):
    result = run("inspect", "--json")
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [row["error"] is None for row in rows] == [True, True, False, True]
    trained = [run["text"] for run in rows[0]["runs"] if run["kind"] == "trained"]
    assert trained == ["Black.<|im_end|>"]
    packed = run("inspect", "--json", "--rows", "0:2", "--pack", "100").stdout.splitlines()
    assert [(row["pack"], row["document"]) for row in map(json.loads, packed)] == [(1, 1), (1, 2)]
    refused = run("inspect", "--json", "--html", "page.html")
    assert "--json and --html exclude each other" in refused.stderr


@pytest.mark.usefixtures("terminal_output")
def test_inspect_takes_rows(run):
    result = run("inspect", "--rows", "1")
    assert result.exit_code == 0
    assert "row 1" in result.stdout
    assert "row 0" not in result.stdout
    assert "row 3" in run("inspect", "--rows", "-1:").stdout
    assert run("inspect", "--rows", "7:9").exit_code == 1
    assert "no row in '7:9'" in run("inspect", "--rows", "7:9").stderr.replace("\n", "")


@pytest.mark.usefixtures("terminal_output")
def test_inspect_shows_packs(run):
    result = run("inspect", "--rows", "0:2", "--pack", "100")
    assert "pack 1: 2 documents, " in result.stdout
    assert "document 1, row 0" in result.stdout
    alone = run("inspect", "--rows", "0", "--pack", "20").stdout
    assert "too long for a pack of 20" in alone


def test_inspect_compares_strategies(run):
    same = run("inspect", "--rows", "1", "--diff", "TemplateMarkerLabels")
    assert "TemplateMarkerLabels trains the same tokens" in same.stdout
    refused = run("inspect", "--rows", "0", "--diff", "GenerationTagLabels")
    assert "GenerationTagLabels refuses this row: the chat template has no" in refused.stdout
    unknown = run("inspect", "--diff", "Nothing")
    assert unknown.exit_code == 1
    assert "diff must be one of RenderedSpanLabels" in unknown.stderr


def test_inspect_writes_a_page(run, tmp_path):
    file = tmp_path / "page.html"
    result = run("inspect", "--html", str(file))
    assert result.exit_code == 1
    assert "4 rows" in result.stdout
    assert "[[" not in result.stdout
    text = file.read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert run("inspect", "--html", str(tmp_path)).exit_code == 1


@pytest.fixture
def thinking_rows(tmp_path):
    """Rows of a template that writes earlier answers without the end of their prompt."""
    processor_with("qwen3_5_think").save_pretrained(tmp_path / "processor")
    rows = [[*chat("One?", "Yes."), *chat("Two?", f"No {number}.")] for number in range(3)]
    text = "\n".join(json.dumps({"messages": row}) for row in [*rows, chat("Three?", "Yes.")])
    (tmp_path / "rows.jsonl").write_text(text)
    return str(tmp_path / "processor"), str(tmp_path / "rows.jsonl")


NOTE = "earlier answers are trained without '<think>', which ends every generation prompt (in 3 of"


def test_a_note_stands_once_with_the_number_of_its_rows(thinking_rows):
    result = CliRunner().invoke(app, ["inspect", *thinking_rows])
    header, *records = (line.split("\t") for line in result.stdout.splitlines())
    assert {len(record) for record in records} == {len(header)}
    found = [dict(zip(header, record, strict=True)) for record in records]
    assert [row["row"] for row in found] == ["0", "1", "2", "3", "note", "note"]
    assert [row["notes"] for row in found[:4]] == [""] * 4
    notes = [row["notes"] for row in found[4:]]
    assert notes[0].startswith(f"{NOTE} 4 rows, first in row 0); set train_on=")
    assert "(in 4 of 4 rows, first in row 0); set empty_reasoning=" in notes[1]
    split = CliRunner().invoke(app, ["inspect", *thinking_rows, "--option", "split_turns=true"])
    assert "(in 4 of 4 rows, first in row 0, sample 1 of 2)" in split.stdout
    rows = CliRunner().invoke(app, ["inspect", *thinking_rows, "--json"]).stdout.splitlines()
    assert [len(json.loads(row)["warnings"]) for row in rows] == [2, 2, 2, 1]


@pytest.mark.usefixtures("terminal_output")
def test_a_note_stands_once_in_the_terminal_and_on_the_page(thinking_rows, tmp_path):
    shown = CliRunner().invoke(app, ["inspect", *thinking_rows]).stdout
    assert shown.count("which ends every generation prompt") == 1
    assert f"! {NOTE} 4 rows, first in row 0)" in shown
    page = tmp_path / "page.html"
    CliRunner().invoke(app, ["inspect", *thinking_rows, "--html", str(page)])
    assert page.read_text("utf-8").count("which ends every generation prompt") == 1
    CliRunner().invoke(app, ["inspect", *thinking_rows, "--html", str(page), "--pack", "500"])
    assert page.read_text("utf-8").count("which ends every generation prompt") == 1


def test_a_folder_without_a_processor_is_refused(data_folder):
    result = CliRunner().invoke(app, ["inspect", str(data_folder), str(data_folder / "rows.jsonl")])
    assert result.exit_code == 1
    assert "cannot load the processor" in result.stderr


def test_differences_are_marked_by_the_strategy_that_trains_them(capsys):
    collator = collator_for(tiny_processor())
    explanation = collator.explain(chat("Hi", "Yes"))
    sample = explanation.sample
    labels = torch.where(sample.labels == -100, sample.input_ids, -100)
    changed = attrs.evolve(sample, tokens={**sample.tokens, "labels": labels})
    text = terminal.mask(explanation.compared(changed), brackets=True).plain
    assert "{-Yes<|im_end|>-}" in text
    assert "{+Hi+}" in text
    longer = collator.encode(chat("Hi you", "Yes"))
    with pytest.raises(ConfigError, match="lead to different tokens"):
        explanation.compared(longer)


def test_control_characters_do_not_reach_the_terminal():
    explanation = collator_for(tiny_processor()).explain(chat("\x1b[2J", "\x07ok"))
    text = terminal.mask(explanation, brackets=False).plain
    assert "\x1b" not in text
    assert "\x07" not in text


def test_thumbnails_are_small():
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1600, 3), np.uint8)
    kind, _, data = thumbnail(Image.fromarray(noise)).partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (144, 108)
    assert len(data) < 20_000
    assert thumbnail(np.zeros(16000, np.float32)) == ""


def test_markup_in_the_data_stays_text():
    explanation = collator_for(tiny_processor()).explain(chat("</script><!--", "ok"))
    text = inspect_page([{"title": "</script>", **page_entry(explanation)}], name="</title><b>")
    assert text.count("</script>") == 3
    assert "<!--" not in text
    assert "</title><b>" not in text


def test_colours_are_used_if_the_terminal_has_any():
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, color_system="standard")
    explanation = collator_for(tiny_processor()).explain(chat("Hi", "Yes"))
    rows = [InspectedRow(number=0, explanation=explanation)]
    print_rows(console, rows, [], diff="TextSearchLabels")
    shown = printed.getvalue()
    assert "\x1b[1;30;42mYes<|im_end|>" in shown
    assert "only TextSearchLabels trains it" in shown


def test_the_key_names_every_class():
    assert terminal.key(brackets=False).plain == (
        " trained    message, not trained    written by the template    media    padding "
    )
    assert terminal.key(brackets=True).plain.startswith("[[trained]]")
