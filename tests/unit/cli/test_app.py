"""The command line."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.forking import run_in_fresh_package
from vlmcollate.cli import demo
from vlmcollate.cli.app import app
from vlmcollate.cli.demo_output import sparkline
from vlmcollate.cli.families import support_table
from vlmcollate.errors import ConfigError
from vlmcollate.models import COLLATORS


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "160")
    return CliRunner()


def test_help_names_the_commands(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "demo" in result.stdout
    assert "families" in result.stdout


def test_version_is_printed(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert re.match(r"vlmcollate \S+", result.stdout)


def test_version_and_help_import_neither_torch_nor_transformers() -> None:
    code = """
import sys
from typer.testing import CliRunner
from vlmcollate.cli.app import app
names = [command.name for command in app.registered_commands]
assert len(names) == 7, names
for arguments in (["--version"], ["--help"], *([name, "--help"] for name in names)):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
heavy = {"numpy", "pyarrow", "torch", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr


@pytest.fixture
def terminal_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich writes as it does on a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_families_are_records_in_a_pipe_and_objects_in_json(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    rows = support_table().processors
    header, *lines = runner.invoke(app, ["families"]).stdout.splitlines()
    assert header.split("\t") == ["processor", "collator", "support", "media", "bytes", "note"]
    assert [line.split("\t")[0] for line in lines] == [row.processor for row in rows]
    lines = runner.invoke(app, ["families", "--json"]).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [row["processor"] for row in found] == [row.processor for row in rows]
    assert [tuple(row["media"]) for row in found] == [row.media for row in rows]
    (keys,) = runner.invoke(app, ["families", "gemma3n", "--keys", "--json"]).stdout.splitlines()
    assert json.loads(keys)["collator"] == "Gemma3nCollator"


def test_families_are_found_by_a_part_of_their_names(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["families", "qwen3-vl"]).stdout
    assert "Qwen3VLProcessor" in shown
    assert "Gemma" not in shown
    unknown = runner.invoke(app, ["families", "paligema"])
    assert unknown.exit_code == 1
    assert "has 'paligema' in its name; did you mean 'PaliGemmaProcessor'?" in unknown.stderr


@pytest.mark.usefixtures("terminal_output")
@pytest.mark.parametrize("width", [80, 160])
def test_families_shows_the_table(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = runner.invoke(app, ["families"])
    assert result.exit_code == 0
    table, shown = support_table(), without_styles(result.stdout)
    for row in table.processors:
        (line,) = (x for x in shown.splitlines() if x.split()[:1] == [row.processor])
        assert ", ".join(row.media) in line
        assert (row.collator in line) == (width == 160 or not row.collator)
    for support in ("exact", "refused"):
        number = sum(row.support == support for row in table.processors)
        assert f"{support} ({number})" in shown
    assert f"transformers {table.transformers}" in shown


@pytest.mark.usefixtures("terminal_output")
def test_families_lists_the_keys_of_all_that_are_registered(runner: CliRunner) -> None:
    result = runner.invoke(app, ["families", "--keys"])
    assert result.exit_code == 0
    shown = without_styles(result.stdout)
    for processor, collator in COLLATORS.items():
        assert f" {processor} " in shown
        assert f" {collator.__name__} " in shown
    assert "image_grid_thw: Concatenate(rows='image')" in shown
    assert "mm_token_type_ids" in shown


def test_demo_shows_the_mask_the_table_and_the_loss(runner: CliRunner) -> None:
    result = runner.invoke(app, ["demo", "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert "Qwen2_5_VLCollator for a real Qwen2_5_VLProcessor" in result.stdout
    assert "[[I see a " in result.stdout
    assert "It is a trap.<|im_end|><|im_end|>↵" in result.stdout
    assert "What is trained" in result.stdout
    assert re.search(r"One question +│ +\d+ │ +12 │ +\d+ │ +\d+% │ I see a", result.stdout)
    assert re.search(r"Loss \d\.\d{3} at the first step, \d\.\d{3} at the last", result.stdout)


def test_demo_without_steps_trains_nothing(runner: CliRunner) -> None:
    result = runner.invoke(app, ["demo", "--steps", "0"])
    assert result.exit_code == 0
    assert "Loss" not in result.stdout


def test_errors_are_one_line(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConfigError("the first line [bold]\nand the second")

    monkeypatch.setattr(demo, "run", fail)
    result = runner.invoke(app, ["demo"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "error: the first line [bold] and the second\n"


def test_wrong_options_are_refused(runner: CliRunner) -> None:
    assert runner.invoke(app, ["demo", "--steps", "-1"]).exit_code == 2
    assert runner.invoke(app, ["nothing"]).exit_code == 2


def test_the_loss_falls_and_repeats_with_the_seed() -> None:
    first, again = (demo.run(Console(file=io.StringIO()), steps=8, seed=3) for _ in range(2))
    assert first == again
    assert first[-1] < first[0] - 1


def test_sparklines_reach_from_lowest_to_highest() -> None:
    assert sparkline([5.0]) == "▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, 7.0]) == "▁█"
    assert sparkline([float(i) for i in range(100)], width=8) == "▁▁▂▃▄▅▆█"


@pytest.mark.parametrize("package", ["rich", "typer"])
def test_the_command_names_the_extra_that_it_needs(package):
    run_in_fresh_package(
        f"import sys; sys.modules[{package!r}] = None\n"
        "from vlmcollate.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as error:\n"
        f"    assert str(error).startswith('error: the command needs {package}, '), error\n"
        "    assert 'vlmcollate[cli]' in str(error), error\n"
        "else:\n    raise AssertionError\n"
    )
