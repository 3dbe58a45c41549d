"""`vlmcollate doctor` says what a template does, and what to do about it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.processors.published_templates import processor_with
from vlmcollate.cli.app import app
from vlmcollate.testing import tiny_processor

WORDS = (
    "{% for m in messages %}{{ m.role.upper() }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def diagnosed(folder, *options):
    result = CliRunner().invoke(app, ["doctor", str(folder), "--json", *options])
    assert result.exit_code in (0, 1) and result.stdout, (result.output, result.exception)
    return result.exit_code, json.loads(result.stdout)


@pytest.fixture
def words(tmp_path):
    processor = tiny_processor()
    processor.chat_template = WORDS
    processor.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def test_it_says_what_ends_a_turn_and_which_turns_lack_their_prompt(tmp_path):
    processor_with("qwen3_5_think").save_pretrained(tmp_path)
    code, found = diagnosed(tmp_path)
    assert code == 0
    assert found["turn_end"] == "'<|im_end|>', which trains"
    assert found["switches"] == ["enable_thinking"]
    findings = {finding["chat"]: finding for finding in found["findings"]}
    assert all(finding["is_exact"] for finding in findings.values())
    assert findings["one answer"]["trained"] == ["\n</think>\n\nIt is mild.<|im_end|>"]
    assert any('train_on="last_turn"' in note for note in findings["several answers"]["notes"])
    (note,) = findings["one answer"]["notes"]
    assert "empty_reasoning=" in note


def test_turns_that_words_end_are_named_with_the_way_on(words):
    code, found = diagnosed(words)
    assert code == 1
    assert "unclosed_turns" in found["turn_end"]
    assert not any(finding["is_exact"] for finding in found["findings"])
    code, found = diagnosed(words, "--option", "unclosed_turns=append_eos")
    assert code == 0
    assert found["turn_end"].startswith("no token of the template")
    assert found["findings"][0]["trained"] == [" It is mild.<|im_end|>"]


def test_a_pipe_has_one_record_a_line(words):
    result = CliRunner().invoke(app, ["doctor", str(words)])
    lines = result.stdout.splitlines()
    assert [line.split("\t")[0] for line in lines[:3]] == [
        *("processor", "ends a turn", "switches for thinking"),
    ]
    assert len(lines) == 4 + 7
    assert all(line.split("\t")[1] == "refused" for line in lines[4:])
