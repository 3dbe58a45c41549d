"""Reasoning inside answers, and how chat templates write it."""

from __future__ import annotations

import warnings

import pytest

from tests.decoding import trained_texts
from tests.processors.published_templates import processor_with
from vlmcollate import collator_for
from vlmcollate.prompt.reasoning import ReasoningForm

_ASK = {"role": "user", "content": "Quokka?"}
_FINAL = "<|start|>assistant<|channel|>final<|message|>"
_INLINE = "<think>\nPonder deep\n</think>\n\nNumbat one"


def _answered(text, **more):
    return [_ASK, {"role": "assistant", "content": text, **more}]


def _trained(template, chat, **options):
    processor = processor_with(template)
    sample = collator_for(processor, **options).encode(chat)
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


@pytest.mark.parametrize(
    ("template", "opening", "closing", "before_text"),
    [
        ("qwen3", "<think>", "</think>", ""),
        ("qwen3_5_think", "<think>", "</think>", ""),
        ("glm4moe", "<think>", "</think>", ""),
        ("gptoss", "<|channel|>analysis<|message|>", "<|end|>", _FINAL),
        ("gemma4_v5", "<|channel>thought", "<channel|>", ""),
        ("muse_glimmer", "to=self<|message|>", "<|eom|>", "<|start|>assistant to=user<|message|>"),
    ],
)
def test_the_form_is_read_off_the_template(template, opening, closing, before_text):
    tools = collator_for(processor_with(template))._tools  # what the collator itself reads
    assert tools.reasoning in (
        ReasoningForm(opening, closing, "reasoning_content", before_text),
        # gpt-oss reads this key, to which older releases of transformers do not copy the other
        *(
            ReasoningForm(opening, closing, k, _FINAL)
            for k in ["thinking"]
            if before_text == _FINAL
        ),
    )


@pytest.mark.parametrize("template", ["qwen2_5", "llama3", "smolvlm"])
def test_a_template_without_reasoning_has_no_form(template):
    assert collator_for(processor_with(template))._tools.reasoning is None


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5_think", "glm4moe"])
def test_inline_reasoning_is_what_its_own_key_is(template):
    assert _trained(template, _answered(_INLINE)) == _trained(
        template, _answered("Numbat one", reasoning_content="Ponder deep")
    )


def test_inline_reasoning_that_would_read_otherwise_stays_text():
    assert _trained("gemma4_v5", _answered(_INLINE)) == [f"{_INLINE}<turn|>"]
    assert _trained("lfm2_2_5_vl", _answered(_INLINE)) == [f"{_INLINE}<|im_end|>"]
    assert _trained("qwen2_5", _answered(_INLINE)) == [f"{_INLINE}<|im_end|>"]


def test_inline_reasoning_that_the_template_would_remove_trains():
    inline = "<|channel>thought\nPonder deep\n<channel|>Numbat one"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _trained("gemma4_v5", _answered(inline)) == [f"{inline}<turn|>"]


def test_inline_reasoning_that_the_template_refuses_trains():
    inline = "<|channel|>analysis<|message|>Ponder deep<|end|>Numbat one"
    (found,) = _trained("gptoss", _answered(inline))
    assert "Ponder deep" in found
    assert "Numbat one<|return|>" in found


def test_the_header_between_inline_reasoning_and_its_text_moves_away():
    inline = f"<|channel|>analysis<|message|>Ponder deep<|end|>{_FINAL}Numbat one"
    given = _answered("Numbat one", reasoning_content="Ponder deep")
    assert _trained("gptoss", _answered(inline)) == _trained("gptoss", given)


@pytest.mark.parametrize("first", ["plain", "inline"])
def test_an_answer_that_begins_as_its_prompt_ends_trains_behind_it(first):
    """Nemotron's prompt ends with `<think>`, which inline reasoning repeats."""
    collator = collator_for(processor_with("nemotron_3_nano"))
    chats = {"plain": _answered("Numbat one"), "inline": _answered(_INLINE)}
    expected = {
        "plain": ["Numbat one<|im_end|>"],
        "inline": ["Ponder deep\n</think>\n\nNumbat one<|im_end|>"],
    }
    for name in (first, *expected):
        sample = collator.encode(chats[name])
        tokenizer = collator.processor.tokenizer
        assert trained_texts(tokenizer, sample.input_ids, sample.labels) == expected[name]


@pytest.mark.parametrize(
    "content",
    [
        "Numbat <think>Ponder</think>",
        "<think>Ponder without an end",
        "<think></think>Numbat",
        "<think>\n\n</think>\n\nNumbat",
        "</think>Numbat",
    ],
)
def test_text_that_holds_no_leading_reasoning_is_not_moved(content):
    collator = collator_for(processor_with("qwen3"))
    assert (
        "reasoning_content" not in collator.read_conversation(_answered(content)).messages[1].extra
    )


def test_a_part_with_a_weight_and_reasoning_of_its_own_stay_where_they_are():
    collator = collator_for(processor_with("qwen3"))
    part = {"type": "text", "text": _INLINE, "weight": 0.5}
    assert not collator.read_conversation(_answered([part])).messages[1].extra
    both = _answered(_INLINE, reasoning_content="Other")
    assert collator.read_conversation(both).messages[1].extra == {"reasoning_content": "Other"}
