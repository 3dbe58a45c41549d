"""What is reported of turns that train otherwise than they are prompted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tests.processors import build
from tests.processors.published_templates import processor_with
from vlmcollate import collator_for
from vlmcollate.cli.app import app
from vlmcollate.errors import ConversationError
from vlmcollate.testing import check_collator, tiny_processor
from vlmcollate.testing.laws.construction import check_is_frozen


def said(role, text, **more):
    return {"role": role, "content": text, **more}


CHAT = [
    message
    for word in ("one", "two", "three")
    for message in (said("user", f"Ask {word}?"), said("assistant", f"Answer {word}."))
]
OFF_PROMPT = (
    "messages[1], messages[3] are trained without '<think>', which ends every generation prompt; "
    'set train_on="last_turn" to train only the last turn, or split_turns=True to train each turn '
    "after its own prompt"
)
REMEDY = '; set empty_reasoning="mask" to exclude it from the loss, or "drop" to remove it'
BLOCK = r"'<think>\n\n</think>'"
EMPTY = f"messages[5] is trained to write the empty block {BLOCK} in place of reasoning{REMEDY}"


def explained(template, chat=CHAT, **options):
    collator = collator_for(processor_with(template), on_template_omission="allow", **options)
    return collator.explain(chat)


@pytest.mark.parametrize("template", ["qwen3_5_think", "qwen3_6"])
def test_turns_off_their_prompt_and_empty_blocks_are_reported_once(template):
    assert explained(template).warnings == (OFF_PROMPT, EMPTY)


def test_many_turns_are_counted():
    (note, _) = explained("qwen3_5_think", [*CHAT, *CHAT, *CHAT]).warnings
    assert note.startswith("messages[1], messages[3], messages[5] and 5 more are trained without")


def test_turns_that_do_not_train_are_not_reported():
    found = explained("qwen3_5_think", train_on="last_turn").warnings
    assert found[0] == EMPTY
    assert not any("without" in warning for warning in found)
    ignored = [*CHAT[:-1], {**CHAT[-1], "weight": 0}]
    found = explained("qwen3_5_think", ignored).warnings
    assert [w for w in found if "empty block" in w] == []


@pytest.mark.parametrize(
    ("template", "block", "turns"),
    [
        ("qwen3", r"'<think>\n\n</think>'", "messages[5] is"),
        ("glm4moe", "'<think></think>'", "messages[1], messages[3], messages[5] are"),
        ("qwen3_8", r"'<think>\n\n</think>'", "messages[1], messages[3], messages[5] are"),
    ],
)
def test_a_block_is_reported_exactly_if_it_is_empty_and_trains(template, block, turns):
    (found,) = explained(template).warnings
    assert found.startswith(f"{turns} trained to write the empty block {block}")
    with_thought = [CHAT[0], {**CHAT[1], "reasoning_content": "Because."}]
    assert explained(template, with_thought).warnings == ()
    forced = explained(template, CHAT[:2], template_kwargs={"enable_thinking": False})
    assert not any("empty block" in warning for warning in forced.warnings)


def test_the_options_that_are_named_mend_it():
    assert explained("qwen3_5_think", empty_reasoning="mask").warnings == (OFF_PROMPT,)
    (_, last) = explained("qwen3_5_think", empty_reasoning="drop").warnings
    assert last.startswith(
        "messages[5] is trained without '<think>'"
    )  # of the block and the prompt
    split = collator_for(processor_with("qwen3_5_think"), split_turns=True, empty_reasoning="mask")
    assert [explanation.warnings for explanation in split.explain_all(CHAT[:2])] == [()]
    found = [w for explanation in split.explain_all(CHAT) for w in explanation.warnings]
    assert not any("are trained without" in warning for warning in found)


@pytest.mark.parametrize("template", ["gemma4", "gptoss", "llama3_2", "smolvlm", "qwen2_5_vl"])
def test_nothing_is_reported_of_turns_that_are_as_prompted(template):
    assert explained(template).warnings == ()


def test_a_template_that_drops_the_prompt_of_the_last_turn_has_no_better_option():
    (found,) = explained("deepseek_r1_distill").warnings
    assert "messages[1], messages[3], messages[5] are trained without '<think>'" in found
    assert "last_turn" not in found
    assert "split_turns" not in found
    assert 'off_prompt="error" refuses such chats' in found


@pytest.mark.parametrize("empty_reasoning", ["train", "mask"])
def test_an_earlier_turn_that_differs_is_reported_whatever_becomes_of_its_block(empty_reasoning):
    thought = [*CHAT[:3], {**CHAT[3], "reasoning_content": "Because."}]
    options = {"template_kwargs": {"enable_thinking": True}, "empty_reasoning": empty_reasoning}
    found = explained("nemotron_3_nano", thought, **options).warnings
    differs, *others = found
    assert differs == (
        r"messages[1] is written with '</think>' where every generation prompt goes on with '\n'; "
        'set train_on="last_turn" to train only the last turn, or the weight of the others to 0'
    )
    assert [w for w in others if "empty block" not in w] == []
    assert len(others) == (empty_reasoning == "train")


def test_turns_that_cannot_end_a_chat_are_not_split():
    greeting = [CHAT[1], *CHAT[2:4]]
    processor = processor_with("qwen3_5_think")
    found = [n for n in collator_for(processor).explain(greeting).turn_notes if 0 in n.messages]
    assert found
    assert not any("split_turns" in str(note) for note in found)
    with pytest.raises(ConversationError, match="No user query"):
        collator_for(processor, split_turns=True).encode_all(greeting)
    split = [w for w in explained("qwen3_5_think").warnings if "split_turns" in w]
    assert split == [OFF_PROMPT]
    assert collator_for(processor, split_turns=True).encode_all(CHAT)


def test_a_prompt_that_lost_its_block_is_no_fault_of_the_template():
    (note,) = explained("qwen3_6", CHAT[:2], empty_reasoning="drop").turn_notes
    assert note.has_last
    assert str(note).startswith("messages[1] is trained without '<think>'")
    assert 'set empty_reasoning="mask" to keep it' in str(note)
    assert 'off_prompt="error" refuses such chats' in str(note)
    assert "template whose" not in str(note)
    kept = explained("qwen3_6", CHAT[:2], empty_reasoning="mask", off_prompt="error")
    assert kept.warnings == ()


INLINE = [CHAT[0], said("assistant", "<think>\nBecause.\n</think>\n\nSo.")]


@pytest.mark.parametrize(
    ("template", "block", "remedy"),
    [
        ("qwen3_8", r"'<think>\n\n</think>'", "give the reasoning as 'reasoning_content', or set"),
        ("glm4v", "'<think></think>'", "set"),
    ],
)
def test_an_empty_block_before_reasoning_in_the_text_is_reported(template, block, remedy):
    processor = build("glm4v") if template == "glm4v" else processor_with(template)
    (found,) = collator_for(processor).explain(INLINE).warnings
    fact, _, ways = found.partition("; ")
    place = "before the reasoning in the text"
    assert fact == f"messages[1] is trained to write the empty block {block} {place}"
    mask = 'empty_reasoning="mask" to exclude the block from the loss, or "drop" to remove it'
    assert ways == f"{remedy} {mask}"
    masked = collator_for(processor, empty_reasoning="mask").explain(INLINE)
    assert masked.warnings == ()
    (text,) = [run.text for run in masked.runs if run.kind == "trained"]
    assert text.startswith("<think>\nBecause.\n</think>\n\nSo.")
    dropped = collator_for(processor, empty_reasoning="drop").explain(INLINE)
    assert "".join(run.text for run in dropped.runs).count("</think>") == 1


def test_the_key_that_is_named_writes_the_reasoning_without_a_block():
    given = [CHAT[0], said("assistant", "So.", reasoning_content="Because.")]
    assert explained("qwen3_8", given).warnings == ()


def test_only_turns_that_train_make_the_last_one():
    ignored = [*CHAT[:-1], {**CHAT[-1], "weight": 0}]
    (found, _) = explained("deepseek_r1_distill", ignored).warnings
    assert found.startswith("messages[1], messages[3] are trained without '<think>'")
    assert "split_turns=True" in found


def test_a_system_message_behind_earlier_turns_is_reported_if_they_train():
    messages = [said("system", "Be brief."), *CHAT]
    processor = processor_with("v3", "templates_mistral_common")
    (found,) = collator_for(processor).explain(messages).warnings
    assert "earlier turns are trained without them" in found
    assert "split_turns=True to train each turn after the system message" in found
    last = collator_for(processor, train_on="last_turn").explain(messages).warnings
    assert not any("without them" in warning for warning in last)


def test_a_block_of_plain_letters_is_found():
    processor = tiny_processor()  # whose tokenizer has no token for a thought
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}[thought]{{ m.reasoning_content }}[/thought]{% endif %}"
        "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (found,) = collator_for(processor).explain(CHAT[:2]).warnings
    assert "messages[1] is trained to write the empty block '[thought][/thought]'" in found
    thought = [CHAT[0], {**CHAT[1], "reasoning_content": "Because."}]
    assert collator_for(processor).explain(thought).warnings == ()


def test_check_reports_both():
    report = check_collator(
        collator_for(processor_with("qwen3_5_think")), laws=[check_is_frozen], examples=1
    )
    off_prompt, empty = report.notes
    assert off_prompt.startswith("messages[1] is trained without '<think>'")
    assert empty == EMPTY.replace("[5]", "[3]")
    assert f"note: {empty}" in repr(report)
    assert "empty block" in report.junit()


def test_the_commands_report_both(tmp_path):
    processor_with("qwen3_5_think").save_pretrained(tmp_path / "processor")
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": CHAT}) + "\n")
    folder = str(tmp_path / "processor")
    result = CliRunner().invoke(app, ["inspect", folder, str(tmp_path / "chats.jsonl"), "--json"])
    assert json.loads(result.stdout)["warnings"] == [OFF_PROMPT, EMPTY]
    result = CliRunner().invoke(app, ["check", folder, "--law", "check_is_frozen"])
    kinds = [line.split("\t")[0] for line in result.stdout.splitlines()]
    assert kinds == ["law", "check_is_frozen", "note", "note"]
