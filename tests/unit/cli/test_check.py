"""The command `vlmcollate check`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vlmcollate.cli.app import app


@pytest.fixture
def check(data_folder):
    def checked(*options):
        laws = ["--law", "check_is_frozen", "--law", "check_loss_weights"]
        command = ["check", str(data_folder / "processor"), "--examples", "1", *laws, *options]
        return CliRunner().invoke(app, command)

    return checked


def test_json_is_the_report(check):
    result = check("--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["collator"] == "Qwen2_5_VLCollator"
    statuses = {entry["law"]: entry["status"] for entry in found["results"]}
    assert statuses == {"check_is_frozen": "passed", "check_loss_weights": "passed"}


def test_piped_results_are_one_record_a_line(check, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    header, *lines = (line.split("\t") for line in check().stdout.splitlines())
    assert header == ["law", "status", "seconds", "note"]
    assert [line[:2] for line in lines] == [
        ["check_is_frozen", "passed"],
        ["check_loss_weights", "passed"],
    ]


def test_without_time_the_report_is_complete_and_the_code_is_1(check):
    result = check("--json", "--seconds", "0")
    assert result.exit_code == 1
    statuses = {entry["status"] for entry in json.loads(result.stdout)["results"]}
    assert statuses == {"not reached"}
