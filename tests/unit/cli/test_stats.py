"""The command `vlmcollate stats`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.unit.cli.conversations import chat
from vlmcollate import ConfigError, collator_for
from vlmcollate.cli.survey import Survey, survey_rows
from vlmcollate.explain.charts import Axes, bars, histogram, names_of_bars
from vlmcollate.testing import tiny_processor


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


def test_piped_tables_are_one_record_a_line(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    lines = [line.split("\t") for line in run("stats").stdout.splitlines()]
    assert ["per row", "minimum", "median", "mean", "95%", "maximum", "all"] in lines
    assert ["dropped by", "rows", "the first"] in lines
    problem = "row 2: messages: expected at least one message, found none"
    assert ["ConversationError", "1", problem] in lines


def test_json_is_one_document(run, tmp_path):
    file = tmp_path / "stats.html"
    result = run("stats", "--json", "--html", str(file))
    found = json.loads(result.stdout)
    assert (found["rows"], found["media_items"]) == (3, {"image": 1})
    assert found["tokens"]["minimum"] <= found["tokens"]["median"] <= found["tokens"]["maximum"]
    assert found["trained_share"] == found["trained_tokens"]["all"] / found["tokens"]["all"]
    assert found["padding"][0] == {
        "rows_per_batch": 1,
        "share": 0.0,
        "share_grouped_by_length": 0.0,
    }
    assert found["packing"][-1]["rows_too_long"] == 0
    assert [failed["error"] for failed in found["dropped"]] == ["ConversationError"]
    assert file.exists()


def texts(chart):
    return re.findall(r"<text [^>]*>([^<]*)</text>", chart)


def test_charts_hold_their_values_and_no_markup():
    axes = Axes(x="<x>", y="&", ticks=names_of_bars(["a", "<b>"]))
    chart = bars([1, 2], tips=["<b>", "two"], axes=axes, title="<i>", about="&")
    assert chart.count("<rect") == 2
    for markup in ("<b>", "<i>", "<x>"):
        assert markup not in chart
    plot = histogram(np.array([1, 1, 3]), title="t", about="a", x="tokens")
    assert 'aria-label="1: 2; 2: 0; 3: 1"' in plot
    same = histogram(np.array([5, 5]), title="t", about="a", x="tokens")
    assert 'aria-label="5: 2"' in same


def test_axes_have_names_units_and_round_ticks():
    plot = histogram(np.arange(0, 2600), title="t", about="a", x="tokens of a row")
    assert texts(plot) == [
        *("rows", "0", "50", "100"),
        *("0", "1,000", "2,000", "tokens of a row"),
    ]
    few = histogram(np.array([1, 1, 3]), title="t", about="a", x="tokens")
    assert texts(few) == ["rows", "0", "1", "2", "1", "2", "3", "tokens"]
    axes = Axes(x="rows per batch", y="padding, %", ticks=names_of_bars("12"), is_share=True)
    shares = bars([0.0, 0.5], tips="ab", axes=axes, title="t", about="a")
    assert texts(shares)[:4] == ["padding, %", "0%", "20%", "40%"]
    nothing = bars([0.0], tips="a", axes=axes, title="t", about="a")
    assert "nan" not in nothing
    assert texts(nothing)[:2] == ["padding, %", "0%"]


@pytest.mark.parametrize("high", [0, 1, 2, 7, 99, 100, 1234, 10**9])
def test_every_axis_has_ticks_inside(high):
    plot = histogram(np.array([0, high]), title="t", about="a", x="tokens")
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)"', plot)]
    assert all(0 <= place <= 420 for place in places)
    assert len(texts(plot)) >= 5


def test_long_names_stand_in_two_lines():
    names = ["MediaMismatch", "SampleTooLong", "Conversation", "Label", "Media"]
    axes = Axes(x="error", y="rows", ticks=names_of_bars(names))
    chart = bars([1] * 5, tips=names, axes=axes, title="t", about="a")
    heights = re.findall(r'y="([\d.]+)" text-anchor="middle">[A-Z]', chart)
    assert (len(heights), len(set(heights))) == (5, 2)
