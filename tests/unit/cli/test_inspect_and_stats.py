"""The commands `vlmcollate inspect` and `vlmcollate stats`."""

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

from vlmcollate import ConfigError, collator_for
from vlmcollate.cli.app import app
from vlmcollate.cli.inspection import InspectedRow
from vlmcollate.cli.inspection_output import print_rows
from vlmcollate.cli.survey import Survey, survey_rows
from vlmcollate.explain import terminal
from vlmcollate.explain.charts import bars, histogram
from vlmcollate.explain.page import inspect_page, page_entry, thumbnail
from vlmcollate.testing import tiny_processor


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
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
def run(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def ran(command, *options):
        arguments = [command, str(folder / "processor"), str(folder / "rows.jsonl"), *options]
        return CliRunner().invoke(app, [*arguments, "--media-root", str(folder / "media")])

    return ran


def test_inspect_shows_masks_errors_and_warnings(run):
    result = run("inspect")
    assert result.exit_code == 1
    assert "<image 1: 12 tokens>" in result.stdout
    assert "[[Black.<|im_end|>]]" in result.stdout
    assert "! messages[0] spells <|im_end|>, which was encoded as plain text" in result.stdout
    assert "error: messages: expected at least one message, found none" in result.stdout
    assert "[[Yes, yes.<|im_end|>]]" in result.stdout
    assert "labels by RenderedSpanLabels; ms: read " in result.stdout
    assert result.stdout.rstrip().endswith("1 of 4 rows failed")


def test_inspect_takes_rows(run):
    result = run("inspect", "--rows", "1")
    assert result.exit_code == 0
    assert "row 1" in result.stdout
    assert "row 0" not in result.stdout
    assert run("inspect", "--rows", "7:9").exit_code == 1
    assert "no row in '7:9'" in run("inspect", "--rows", "7:9").stderr.replace("\n", "")


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


def test_a_folder_without_a_processor_is_refused(folder):
    result = CliRunner().invoke(app, ["inspect", str(folder), str(folder / "rows.jsonl")])
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


def counted(*lengths):
    values = np.array(lengths, np.int64)
    return Survey(lengths=values, trained=values // 2, media=values * 0, items={}, failures={})


def test_padding_waste_is_the_share_of_padding():
    found = counted(1, 4, 1, 4)
    assert found.padding_waste(1) == 0
    assert found.padding_waste(2) == pytest.approx(1 - 10 / 16)
    assert found.padding_waste(2, grouped=True) == 0
    assert found.padding_waste(3) == pytest.approx(1 - 10 / 16)


def test_packing_fill_counts_rows_that_are_too_long():
    assert counted(30, 34, 60, 100).packing_fill(64) == (pytest.approx(124 / 128), 2, 1)
    assert counted(30, 34, 60, 100).pack_lengths == [32, 64, 128, 256]


def test_a_survey_counts_the_encoded_samples():
    collator = collator_for(tiny_processor())
    chats = [chat("Hi", "Yes"), {"messages": []}, chat("Hello", "No"), 3]
    found = survey_rows(collator, list(enumerate(chats)))
    samples = [collator.encode(chats[0]), collator.encode(chats[2])]
    assert found.lengths.tolist() == [len(s) for s in samples]
    assert found.trained.tolist() == [int((s.labels != -100).sum()) for s in samples]
    (count, first) = found.failures["ConversationError"]
    assert count == 2
    assert first.startswith("row 1: ")
    with pytest.raises(ConfigError, match="no good row to count; ConversationError: row 0"):
        survey_rows(collator, [(0, 3)])


def test_stats_prints_tables_and_writes_plots(run, tmp_path):
    file = tmp_path / "stats.html"
    result = run("stats", "--html", str(file))
    assert result.exit_code == 0, result.output
    assert "3 rows with 1 image item" in result.stdout
    for title in ("trained share", "padding, in dataset order", "rows too long", "dropped by"):
        assert title in result.stdout
    text = file.read_text()
    assert text.count("<svg") == 6
    assert "http" not in text.replace("http-equiv", "")


def test_charts_hold_their_values_and_no_markup():
    chart = bars([1, 2], tips=["<b>", "two"], ticks=["a", "b"], title="<i>", about="&")
    assert chart.count("<rect") == 2
    assert "<b>" not in chart
    assert "<i>" not in chart
    plot = histogram(np.array([1, 1, 3]), title="t", about="a")
    assert 'aria-label="1: 2; 2: 0; 3: 1"' in plot
    same = histogram(np.array([5, 5]), title="t", about="a")
    assert 'aria-label="5: 2"' in same


def test_colours_are_used_if_the_terminal_has_any():
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, color_system="standard")
    explanation = collator_for(tiny_processor()).explain(chat("Hi", "Yes"))
    rows = [InspectedRow(number=0, explanation=explanation)]
    print_rows(console, rows, [], diff="TextSearchLabels")
    shown = printed.getvalue()
    assert "\x1b[1;30;42mYes<|im_end|>" in shown
    assert "only TextSearchLabels trains it" in shown
