"""`inspect` and `stats` of a mixture: each source with its own options."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vlmcollate.cli.app import app

FILE = """
sources:
  charts: {data: rows.jsonl, weight: 1, max_pixels: 3136, media: 'LocalMedia(root="%s")'}
  chat: {data: chat.jsonl, weight: 3, format: llava}
"""


@pytest.fixture(scope="module")
def mixture(data_folder):
    says = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}
    (data_folder / "chat.jsonl").write_text("\n".join([json.dumps(says)] * 5))
    (data_folder / "mixture.yaml").write_text(FILE % (data_folder / "media"))
    return data_folder / "mixture.yaml"


@pytest.fixture
def mixed(data_folder, mixture, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")

    def ran(command, *options, file=mixture):
        arguments = [command, str(data_folder / "processor"), str(file), *options]
        return CliRunner().invoke(app, arguments)

    return ran


def test_inspect_names_the_source_of_each_row(mixed, run):
    result = mixed("inspect", "--json", "--rows", ":4")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["source"], row["row"]) for row in rows] == [
        *(("charts", number) for number in range(4)),
        *(("chat", number) for number in range(4)),
    ]
    assert {row.get("format") for row in rows[4:]} == {"llava"}
    alone = json.loads(run("inspect", "--json", "--rows", "0").stdout)
    assert rows[0]["summary"]["tokens"] < alone["summary"]["tokens"]  # of fewer pixels
    assert rows[2]["error"].startswith("messages: expected at least one message")
    assert result.exit_code == 1
    lines = [line.split("\t")[0] for line in mixed("inspect", "--rows", "0").stdout.splitlines()]
    assert lines == ["row", "charts:0", "chat:0"]


def test_inspect_writes_a_page_and_packs_of_all_sources(mixed, tmp_path):
    file = tmp_path / "rows.html"
    mixed("inspect", "--rows", "0", "--pack", "512", "--html", str(file))
    assert "charts, row 0" in file.read_text()
    assert "chat, row 0" in file.read_text()


def test_stats_counts_each_source_and_its_share(mixed, tmp_path):
    file = tmp_path / "stats.html"
    found = json.loads(mixed("stats", "--json", "--html", str(file)).stdout)["sources"]
    assert found["charts"]["rows"] == 3
    assert found["chat"]["rows"] == 5
    assert found["charts"]["share"]["rows"] == 0.25
    # a bad row is drawn, too, and has no tokens
    charts = found["charts"]["tokens"]["all"] / (3 + found["charts"]["dropped"][0]["rows"])
    share = charts / (charts + 3 * found["chat"]["tokens"]["mean"])
    assert found["charts"]["share"]["tokens"] == pytest.approx(share)
    assert "<h2>charts</h2>" in file.read_text()
    assert file.read_text().count("<svg") > 6
    lines = [line.split("\t") for line in mixed("stats").stdout.splitlines()]
    assert ["charts: 3 rows with 1 image item"] in lines
    assert ["source", "share of rows", "share of tokens", "share of trained tokens"] in lines
    assert any(line[:2] == ["chat", "75.0%"] for line in lines)


OVERLONG = """
sources:
  whole: {data: long.jsonl, weight: 1}
  dropped: {data: long.jsonl, weight: 1, max_length: 150, on_overlong: drop}
  cut: {data: long.jsonl, weight: 1, max_length: 150, on_overlong: truncate}
  turns: {data: long.jsonl, weight: 1, max_length: 150, on_overlong: drop_turns}
"""


@pytest.fixture(scope="module")
def overlong(data_folder):
    def said(k):
        texts = [("user", "Hi " * k), ("assistant", "word " * 10 * k)]
        return [{"role": role, "content": text} for role, text in texts * 2]

    rows = [json.dumps({"messages": said(k)}) for k in range(1, 6)]
    (data_folder / "long.jsonl").write_text("\n".join(rows))
    (data_folder / "long.yaml").write_text(OVERLONG)
    return data_folder / "long.yaml"


def test_stats_reports_what_each_source_loses_by_its_own_options(mixed, overlong, tmp_path):
    page = tmp_path / "stats.html"
    result = mixed("stats", "--json", "--html", str(page), file=overlong)
    found = json.loads(result.stdout)["sources"]
    whole, cut = found["whole"], found["cut"]
    assert whole["shortened"] == {"rows": 0, "tokens": 0, "trained_tokens": 0}
    assert whole["dropped"] == found["cut"]["dropped"] == []
    assert cut["shortened"] == {
        "rows": 4,
        "tokens": whole["tokens"]["all"] - cut["tokens"]["all"],
        "trained_tokens": whole["trained_tokens"]["all"] - cut["trained_tokens"]["all"],
    }
    (refused,) = found["dropped"]["dropped"]
    assert (refused["error"], refused["rows"]) == ("SampleTooLongError", 4)
    assert found["dropped"]["shortened"]["rows"] == 0
    assert found["turns"]["shortened"]["rows"] == 3  # two turns of one row are too long by far
    tokens = {name: each["tokens"]["all"] for name, each in found.items()}
    for name, each in found.items():  # of equally many rows
        assert each["share"]["rows"] == 0.25
        assert each["share"]["tokens"] == pytest.approx(tokens[name] / sum(tokens.values()))
    assert "4 rows shortened" in page.read_text()
    lines = [line.split("\t") for line in mixed("stats", file=overlong).stdout.splitlines()]
    assert lines.count(["shortened rows", "tokens cut off", "trained tokens cut off"]) == 2
    lost = cut["shortened"]
    assert [f"{lost[key]:,}" for key in ("rows", "tokens", "trained_tokens")] in lines


def test_the_options_of_a_source_are_named_as_in_its_file(mixed, overlong):
    printed = mixed("stats", file=overlong).stdout
    assert "longer than max_length=150; raise it to 154, or set on_overlong" in printed
    rows = [
        json.loads(line)
        for line in mixed("inspect", "--json", file=overlong).stdout.split("\n")[:-1]
    ]
    errors = {row["source"]: row["error"] for row in rows if row.get("error")}
    assert errors.keys() == {"dropped", "turns"}
    assert all("max_length=150" in error and "--" not in error for error in errors.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is no YAML at line 1"),
        ("sources: {a: {data: rows.jsonl, weight: 1}, a: {}}", "the name 'a' stands twice"),
        ("sources: {a: {data: , weight: 1}}", "the data of source 'a' is wrong: found None"),
        ("sources: [1]", "found {'sources': [1]}, expected 'sources' by name alone"),
        ("source: {}", "found {'source': {}}, expected 'sources' by name"),
        ("sources: {a: {data: rows.jsonl}}", "source 'a' is wrong: found"),
        ("sources: {a: {data: no.jsonl, weight: 1}}", "there is no file"),
        ("sources: {a: {data: rows.jsonl, weight: -1}}", "the weight of source 'a' is wrong"),
        ("sources: {a: {data: rows.jsonl, weight: 1, padding: 3}}", "['a'] sets padding"),
        ("sources: {a: {data: rows.jsonl, weight: 1, formt: x}}", "did you mean 'format'?"),
        ("sources: {a: {data: rows.jsonl, weight: 1, format: llava}}", "source 'a': no good row"),
    ],
)
def test_a_wrong_mixture_is_one_line(mixed, data_folder, text, message):
    file = data_folder / "wrong.yaml"
    file.write_text(text)
    result = mixed("stats", file=file)
    assert result.exit_code == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
