"""Errors on the command line name its flags, not the options of Python."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from vlmcollate.cli.app import app
from vlmcollate.cli.flags import in_flags, naming_flags


def error_of(run, *options, command="inspect"):
    result = run(command, *options)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["-O", "max_length=abc"], "--max-length must be an integer of at least 1"),
        (["-O", "dummy_media=abc"], "--option dummy_media must be one of ('never', 'batch'"),
        (["-O", "padding=3"], "--option padding must be a PaddingStrategy"),
        (
            ["--train-on", "lst_turn"],
            "--train-on must be one of ('all_turns', 'last_turn', 'tool_calls')",
        ),
        (["--format", "lava"], "--format is wrong: found 'lava'"),
        (["--rows", "x"], "--rows is wrong: found 'x', expected a number or a range"),
        (["--diff", "TextSearch"], "not 'TextSearch'; did you mean 'TextSearchLabels'?"),
        (["--max-length", "9", "--rows", "1"], "longer than --max-length 9; raise it to"),
        (["--max-length", "9", "--rows", "1"], "or set --option on_overlong"),
        (["--format", "alpaca", "--rows", "1"], "set --format auto, or the name of its format"),
    ],
)
def test_errors_name_flags(run, options, problem):
    assert problem in error_of(run, *options)


def test_prepare_names_its_own_flags(run, tmp_path):
    out = ["-o", str(tmp_path / "out")]
    problem = error_of(run, *out, "--packing", command="prepare")
    assert "--packing needs --max-length; set it to the maximum" in problem
    assert "or set --on-overlong" in error_of(run, *out, "--max-length", "9", command="prepare")
    assert "--on-error must be" in error_of(run, *out, "--on-error", "skp", command="prepare")
    assert not (tmp_path / "out" / "000000.arrow").exists()


@pytest.mark.parametrize(
    ("role", "content", "problem"),
    [
        ("asistant", "Yes", "did you mean 'assistant'? rename it, or set --option on_unread=allow"),
        ("user", [{"type": "image", "image": "nope.png"}], "or set --media-root to the folder"),
    ],
)
def test_errors_of_rows_name_flags(data_folder, tmp_path, role, content, problem):
    row = [{"role": role, "content": content}, {"role": "assistant", "content": "Yes"}]
    (tmp_path / "row.jsonl").write_text(json.dumps(row))
    command = ["inspect", str(data_folder / "processor"), str(tmp_path / "row.jsonl")]
    assert problem in CliRunner().invoke(app, command).stdout


def test_without_a_command_the_options_of_python_stay():
    text = "longer than max_length=9; set on_overlong"
    assert in_flags(text) == text


def test_calls_paths_and_quotations_stay():
    option = SimpleNamespace(
        name="max_length", opts=["--max-length"], is_flag=False, param_type_name="option"
    )
    context: Any = SimpleNamespace(command=SimpleNamespace(params=[option]))
    with naming_flags(context):
        for text in (
            "'max_length'",
            "P(max_length=3)",
            "a.max_length",
            "my_max_length",
            "a/max_length",
        ):
            assert in_flags(text) == text
        assert in_flags("set max_length=None") == "set no --max-length"
