"""`vlmcollate doctor` reports what a template does, and the options that change it."""

from __future__ import annotations

import json

import attrs
import pytest
from typer.testing import CliRunner

from tests.conftest import NIGHTLY
from tests.processors import BUILDERS, processor_of
from tests.processors.published_templates import processor_with
from vlmcollate import collator_for
from vlmcollate.cli.app import app
from vlmcollate.cli.diagnosis import diagnose
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


def facts(found):
    topics = dict.fromkeys(fact["topic"] for fact in found["facts"])
    return {name: [f for f in found["facts"] if f["topic"] == name] for name in topics}


def test_it_reports_what_ends_a_turn_and_each_option_that_changes_it(tmp_path):
    processor_with("qwen3_5_think").save_pretrained(tmp_path)
    code, found = diagnosed(tmp_path)
    assert code == 0
    known = facts(found)
    assert known["end of a turn"][0]["text"] == "'<|im_end|>'"
    assert known["training of the end"][0]["text"].startswith("it trains")
    assert [(f["text"], f["remedy"].partition(" to ")[0]) for f in known["omitted"]] == [
        ("the reasoning of earlier turns", "set split_turns=True"),
        ("the names of authors", "write them into the text if they matter"),
    ]
    (off_prompt,) = known["turns off their prompt"]
    assert off_prompt["text"].startswith("earlier answers are trained without '<think>'")
    assert 'train_on="last_turn"' in off_prompt["remedy"]
    assert "split_turns=True" in off_prompt["remedy"]
    (empty,) = known["empty reasoning"]
    assert empty["remedy"].startswith('set empty_reasoning="mask"')
    (switch,) = known["switch for thinking"]
    added = repr("\n</think>\n\n")
    assert switch["text"] == f"enable_thinking: False adds {added} to the generation prompt"
    findings = {finding["chat"]: finding for finding in found["findings"]}
    assert all(finding["is_exact"] for finding in findings.values())
    assert findings["one answer"]["trained"] == ["\n</think>\n\nIt is mild.<|im_end|>"]


def test_turns_off_their_prompt_vanish_with_the_option(tmp_path):
    processor_with("qwen3_5_think").save_pretrained(tmp_path)
    _, found = diagnosed(tmp_path, "--option", "train_on=last_turn")
    (off_prompt,) = facts(found)["turns off their prompt"]
    assert off_prompt == {
        "topic": "turns off their prompt",
        "text": "none: each follows its generation prompt",
        "remedy": "",
        "level": "fine",
    }


def test_each_sample_of_split_turns_is_shown(tmp_path):
    processor_with("qwen3_5_think").save_pretrained(tmp_path)
    page = tmp_path / "page.html"
    code, found = diagnosed(
        *(tmp_path, "--option", "split_turns=true", "--train-on", "all_turns"),
        *("--html", str(page)),
    )
    assert code == 0
    (refused,) = [f for f in found["findings"] if not f["is_exact"]]
    assert (refused["chat"], refused["sample"]) == ("an answer first", [1, 2])
    assert "No user query found" in refused["notes"][0]
    several = [f for f in found["findings"] if f["chat"] == "several answers"]
    assert [f["sample"] for f in several] == [[1, 2], [2, 2]]
    trained = ["\n</think>\n\nIt is mild.<|im_end|>", "\n</think>\n\nIt will rain.<|im_end|>"]
    assert [f["trained"] for f in several] == [[text] for text in trained]
    (one,) = [f for f in found["findings"] if f["chat"] == "one answer"]
    assert one["sample"] is None
    reasoning = [f for f in found["findings"] if f["chat"] == "reasoning"]
    assert "Spring." in reasoning[0]["trained"][0]
    omitted = [fact["text"] for fact in facts(found)["omitted"]]
    assert omitted == ["the names of authors"]
    text = page.read_text("utf-8")
    assert "several answers, sample 2 of 2" in text
    assert "<b>8 of 9</b>" in text


def test_a_turn_that_is_refused_hides_no_other():
    """The template ends no answer behind the third message."""
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% for p in m.content %}{{ p.text }}{% endfor %}"
        "{% if loop.index < 4 %}<|im_end|>{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    diagnosis = diagnose(collator_for(processor, split_turns=True))
    several = [f for f in diagnosis.findings if f.chat == "several answers"]
    assert [f.is_exact for f in several] == [True, False]
    assert several[0].trained == ("It is mild.<|im_end|>",)
    assert "no stop token" in several[1].notes[0]
    (refused,) = facts(attrs.asdict(diagnosis))["refused chats"]
    assert refused["text"].startswith("several answers, ")


@pytest.mark.parametrize(
    ("template", "topic", "text"),
    [
        ("llama3_2", "switch for thinking", "none"),
        ("glm4moe", "end of a turn", "'<|user|>' is written behind the last answer"),
        ("nemotron_3_nano", "prompt of the turns", "with enable_thinking=False"),
        ("gemma4", "omitted", "all reasoning"),
        ("gemma4", "place of the answers", "in parts"),
        ("gptoss", "switch for thinking", "changes the text before the question"),
        ("deepseek_r1_distill", "turns off their prompt", "answers are trained without '<think>'"),
    ],
)
def test_each_fact_is_found_where_it_holds(template, topic, text):
    found = attrs.asdict(diagnose(collator_for(processor_with(template))))
    assert any(text in fact["text"] for fact in facts(found)[topic])


@pytest.mark.parametrize("name", sorted(BUILDERS)[:: 1 if NIGHTLY else 3])
def test_every_processor_is_diagnosed(name):
    """What the facts state of the end of turns is what the chats train."""
    diagnosis = diagnose(collator_for(processor_of(name)))
    known = facts(attrs.asdict(diagnosis))
    (end,), exact = known["end of a turn"], [f for f in diagnosis.findings if f.is_exact]
    assert exact
    for finding in exact:
        assert all(any(repr(t[-n:]) in end["text"] for n in range(1, 30)) for t in finding.trained)
    refused = [f.chat for f in diagnosis.findings if not f.is_exact]
    stated = known.get("refused chats", [{"text": ""}])[0]["text"].partition(";")[0]
    assert stated == ", ".join(refused)


def test_system_messages_that_are_omitted_are_named():
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n"
        "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    known = facts(attrs.asdict(diagnose(collator_for(processor))))
    assert [fact["text"] for fact in known["omitted"]] == [
        *("the system message", "all reasoning", "the descriptions of tools", "tool calls"),
        "the names of authors",
    ]


def test_turns_that_words_end_are_named_with_the_option(words):
    code, found = diagnosed(words)
    assert code == 1
    (end,) = facts(found)["end of a turn"]
    assert end["level"] == "loss"
    assert "unclosed_turns" in end["remedy"]
    assert not any(finding["is_exact"] for finding in found["findings"])
    code, found = diagnosed(words, "--option", "unclosed_turns=append_eos")
    assert code == 0
    assert facts(found)["end of a turn"][0]["text"].startswith("no token of the template")
    assert found["findings"][0]["trained"] == [" It is mild.<|im_end|>"]
    code, found = diagnosed(words, "--option", "unclosed_turns=content_only")
    (end,) = facts(found)["training of the end"]
    assert end["text"].startswith("it does not train")
    assert "append_eos" in end["remedy"]


def test_a_pipe_has_one_record_a_line(words):
    result = CliRunner().invoke(app, ["doctor", str(words)])
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0][0] == "processor"
    chats = lines.index(["chat", "labels", "what trains, or why it is refused"]) + 1
    assert all(len(line) == 3 for line in lines[1:])
    assert {line[1] for line in lines[chats:]} == {"refused"}


def test_the_page_is_written_beside_the_table(words, tmp_path):
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["doctor", str(words), "--html", str(page)])
    assert result.stdout.splitlines()[-1] == f"page: {page}"
    text = page.read_text("utf-8")
    assert "vlmcollate doctor" in text
    assert 'aria-label="lost or refused"' in text
    result = CliRunner().invoke(app, ["doctor", str(words), "--html", str(tmp_path)])
    assert "cannot write the page" in result.output


def test_refused_last_turns_are_named_with_the_remedies():
    """A switch that changes the chat as well has to be set."""
    processor = processor_with("gemma4", "templates_axolotl")
    diagnosis = diagnose(collator_for(processor, off_prompt="error"))
    refused, earlier = facts(attrs.asdict(diagnosis))["turns off their prompt"]
    missing = repr("<|channel>thought\n<channel|>")
    assert refused["text"].startswith(f"last answers without {missing}, which ends")
    assert " are refused (in " in refused["text"]
    assert refused["remedy"].startswith("set template_kwargs={'enable_thinking': True}")
    assert 'off_prompt="train"' in refused["remedy"]
    assert refused["level"] == "loss"
    assert earlier["text"].startswith(f"earlier answers are trained without {missing}")
    assert not diagnosis.findings[0].is_exact
    diagnosis = diagnose(collator_for(processor))
    (trained,) = facts(attrs.asdict(diagnosis))["turns off their prompt"]
    assert trained["text"].startswith(f"answers are trained without {missing}")
    assert diagnosis.findings[0].trained == ("It is mild.<turn|>",)


def test_a_switch_that_agrees_with_the_turns_is_the_remedy():
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if not enable_thinking %}<think>\n</think>\n{% endif %}{% endif %}"
    )
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    known = facts(attrs.asdict(diagnose(collator_for(processor))))
    (prompt,) = known["prompt of the turns"]
    assert prompt["text"].startswith("answers are trained after the generation prompt with")
    assert prompt["remedy"] == "set enable_thinking=True for generation, too"
    (switch,) = known["switch for thinking"]
    removed = repr("<think>\n</think>\n")
    assert switch["text"] == f"enable_thinking: True removes {removed} from the generation prompt"


def test_a_template_that_prints_dicts_is_reported():
    processor = tiny_processor()
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }} {{ c.function.arguments }}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (fact,) = facts(attrs.asdict(diagnose(collator_for(processor))))["arguments of calls"]
    assert fact["remedy"] == "give the arguments as a JSON string"
    usual = facts(attrs.asdict(diagnose(collator_for(tiny_processor()))))
    assert "arguments of calls" not in usual
