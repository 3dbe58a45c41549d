"""Unusual shapes of answers: their reasoning, their calls and their weights."""

from __future__ import annotations

import warnings
from typing import Any

import attrs
import pytest

from tests.decoding import trained_texts
from tests.processors.published_templates import processor_with
from vlmcollate import PartWeights, Reasoning, collator_for
from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.prompt.answer_parts import answer_parts
from vlmcollate.prompt.marks import Span
from vlmcollate.prompt.reasoning import PLAIN_FORM
from vlmcollate.prompt.rendering import CallerSpan, Rendering
from vlmcollate.testing import tiny_processor

_ASK = {"role": "user", "content": "Quokka?"}
_CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "Lyon"}}}
_RESULT = {"role": "tool", "name": "look", "content": "12"}
_TEMPLATES = ("qwen3", "qwen3_5_think", "glm4moe", "gemma4", "lfm2_2_5_vl", "nemotron_3_nano")


def _answer(content: Any = "", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def _texts(*parts: Any) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": text, **({} if weight is None else {"weight": weight})}
        for text, weight in parts
    ]


def _trained(template: str, *messages: dict[str, Any], **options: Any) -> list[str]:
    collator = collator_for(processor_with(template), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = collator.encode_all(list(messages))
    tokenizer = collator.processor.tokenizer
    return [t for s in samples for t in trained_texts(tokenizer, s.input_ids, s.labels)]


@pytest.mark.parametrize("template", _TEMPLATES)
def test_calls_train_from_their_first_token_behind_reasoning(template):
    call = _answer(tool_calls=[_CALL])
    options: dict[str, Any] = {"train_on": Reasoning(train=False)}
    bare = _trained(template, _ASK, call, **options)
    reasoned = _trained(template, _ASK, {**call, "reasoning_content": "Ponder deep"}, **options)
    assert "".join(bare).split() == "".join(reasoned).split()


@pytest.mark.parametrize("template", _TEMPLATES)
def test_a_split_turn_ends_as_in_the_whole_chat(template):
    """GLM ends calls with `<|observation|>` and answers with `<|user|>`."""
    chat = [_ASK, _answer(tool_calls=[_CALL]), _RESULT, _answer("Twelve"), _ASK, _answer("Yes")]
    whole = _trained(template, *chat)
    split = _trained(template, *chat, split_turns=True)
    assert len(whole) == len(split) == 3
    for part, own in zip(whole, split, strict=True):
        assert own.endswith(part[-10:])
    assert split[0] == _trained(template, *chat[:2])[0]


@pytest.mark.parametrize("template", _TEMPLATES)
def test_turns_whose_parts_do_not_train_make_no_sample(template):
    chat = [_ASK, _answer("Hello"), _ASK, _answer(tool_calls=[_CALL]), _RESULT, _answer("Twelve")]
    (call,) = _trained(template, *chat, train_on="tool_calls", split_turns=True)
    assert "Lyon" in call
    with pytest.raises(LabelError, match="nothing is trained"):
        _trained(template, *chat[:2], train_on="tool_calls", split_turns=True)
    reasoned = [_ASK, _answer("Hello", reasoning_content="Ponder"), _ASK, _answer("Yes")]
    options: dict[str, Any] = {"train_on": PartWeights(text=0), "empty_reasoning": "mask"}
    if template not in ("gemma4", "lfm2_2_5_vl"):  # which write reasoning beside calls, or nowhere
        (thought,) = _trained(template, *reasoned, split_turns=True, **options)
        assert "Ponder" in thought


def test_token_counts_are_those_of_turns_whose_parts_train():
    chat = [_ASK, _answer("Hello"), _ASK, _answer(tool_calls=[_CALL])]
    collator = collator_for(processor_with("qwen3"), train_on="tool_calls", split_turns=True)
    (sample,) = collator.encode_all(chat)
    assert collator.token_count(chat) == len(sample) == len(collator.encode(chat))


@pytest.mark.parametrize("policy", ["mask", "drop"])
def test_a_word_behind_an_empty_block_trains(policy):
    """The token ` words` begins with the space behind the block."""
    block = "<think>\n\n</think> words"
    (found,) = _trained("qwen2_5", _ASK, _answer(block), empty_reasoning=policy)
    assert found.strip() == "words<|im_end|>"
    options: dict[str, Any] = {"empty_reasoning": policy, "format": "text"}
    collator = collator_for(processor_with("qwen2_5"), **options)
    sample = collator.encode({"text": block})
    (found,) = trained_texts(collator.processor.tokenizer, sample.input_ids, sample.labels)
    assert found.strip() == "words<|im_end|>"
    assert ("<think>" in collator.explain({"text": block}).prompt) == (policy == "mask")


def test_an_explanation_reports_no_block_that_is_masked():
    collator = collator_for(processor_with("qwen2_5"), empty_reasoning="mask")
    chat = [_ASK, _answer("<think>\n\n</think> words")]
    assert not any("empty" in warning for warning in collator.explain(chat).warnings)
    trains = attrs.evolve(collator, empty_reasoning="train")
    assert any("empty block" in warning for warning in trains.explain(chat).warnings)


def test_reasoning_that_nothing_closes_does_not_train_as_text():
    chat = [_ASK, _answer("<think>\nPonder deep")]
    assert _trained("qwen2_5", *chat, train_on=Reasoning(train=False)) == ["<|im_end|>"]


def test_the_lone_end_of_reasoning_is_an_empty_block():
    """GLM 4.7 writes `</think>` before answers without reasoning."""
    chat = [_ASK, _answer("</think>Numbat")]
    options: dict[str, Any] = {"train_on": Reasoning(train=False)}
    assert _trained("qwen2_5", *chat, **options) == ["Numbat<|im_end|>"]
    assert _trained("qwen2_5", *chat, empty_reasoning="mask") == ["Numbat<|im_end|>"]


@pytest.mark.parametrize("template", ["qwen3", "qwen3_5_think", "glm4moe", "qwen2_5"])
def test_the_tags_of_reasoning_have_the_weight_of_their_part(template):
    for thought in ("<think>\nPonder\n</think>\n\n", "<think>\n\n</think>\n\n"):
        (found,) = _trained(template, _ASK, _answer(_texts((thought, 0), ("Numbat", None))))
        assert found.startswith("Numbat")


def test_no_choice_is_refused():
    nothing: Any
    for nothing in ((), []):
        with pytest.raises(ConfigError, match="train_on must be one of"):
            collator_for(processor_with("qwen3"), train_on=nothing)


def test_reasoning_whose_end_is_unknown_is_refused():
    """A guess would leave the beginning of the text untrained."""
    rendering = Rendering(
        text="<a>Ponder deep; Numbat<e>",
        caller_spans=(
            CallerSpan(3, 14, 1, key="reasoning_content"),
            CallerSpan(16, 22, 1, part=0),
        ),
        turns=(Span(3, 25, 1),),
    )
    with pytest.raises(LabelError, match=r"messages\[1\]: the end of the reasoning is unknown"):
        list(answer_parts(rendering, [PLAIN_FORM]))
    closed = attrs.evolve(rendering, text="<a>Ponder deep</think>Numbat<e>")
    spans = (rendering.caller_spans[0], CallerSpan(22, 28, 1, part=0))
    closed = attrs.evolve(closed, caller_spans=spans, turns=(Span(3, 31, 1),))
    kinds = [(closed.text[a:b], kind) for a, b, kind in answer_parts(closed, [PLAIN_FORM])]
    assert kinds == [
        ("Ponder deep", "reasoning"),
        ("</think>", "reasoning_end"),
        ("Numbat<e>", "text"),
    ]


_INLINE, _NOTHING = "<think>\nHm\n</think>\n\nYes", "<think>\n\n</think>\n\nYes"


@pytest.mark.parametrize(
    ("options", "answer", "expected"),
    [
        ({"train_on": Reasoning(train=False)}, _INLINE, ["\n\nYes<|im_end|>"]),
        ({"train_on": PartWeights(text=0)}, _INLINE, ["Hm\n</think>"]),
        ({"empty_reasoning": "mask"}, _NOTHING, ["Yes<|im_end|>"]),
        ({"empty_reasoning": "drop"}, _NOTHING, ["Yes<|im_end|>"]),
    ],
)
def test_reasoning_in_the_text_has_its_parts_where_the_prompt_opens_it(options, answer, expected):
    assert _with_markers("", "<think>\n", answer, **options) == expected


def test_reasoning_in_the_text_has_its_parts_behind_a_token_of_the_template():
    options: dict[str, Any] = {"train_on": Reasoning(train=False)}
    assert _with_markers("<|note|>", "", _INLINE, **options) == ["\n\nYes<|im_end|>"]
    assert _with_markers("<|note|>", "", "Yes", **options) == ["<|note|>Yes<|im_end|>"]


def _with_markers(written: str, asked: str, answer: str, **options: Any) -> list[str]:
    """Trains on an answer before which a template writes a text, and ends its prompt with one."""
    processor = tiny_processor()
    tokens = ["<think>", "</think>", "<|note|>"]
    processor.tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        f"{{% if m.role == 'assistant' %}}{written}{{% endif %}}"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{asked}{{% endif %}}"
    )
    sample = collator_for(processor, **options).encode([_ASK, _answer(answer)])
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
