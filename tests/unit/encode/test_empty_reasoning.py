"""Blocks without reasoning that begin an answer."""

from __future__ import annotations

import pytest
import torch

from tests.decoding import trained_texts
from tests.processors import build
from tests.processors.published_templates import processor_with
from vlmcollate import TemplateMarkerLabels, TextSearchLabels, collator_for
from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.models.default import DefaultCollator

_CHAT = [
    {"role": "user", "content": "Quokka?"},
    {"role": "assistant", "content": "Numbat one"},
    {"role": "user", "content": "Bilby?"},
    {"role": "assistant", "content": "Potoroo two"},
]
_REASONS = [*_CHAT[:3], {**_CHAT[3], "reasoning_content": "Ponder"}]
_BLOCKS = {
    "qwen3": "<think>\n\n</think>\n\n",
    "qwen3_5_think": "\n</think>\n\n",
    "glm4moe": "\n<think></think>\n",
}
"""What an answer without reasoning begins with, as far as the model writes it."""


def _sample(template, chat=_CHAT, **options):
    return collator_for(processor_with(template), **options).encode(chat)


def _trained(template, sample):
    return trained_texts(processor_with(template).tokenizer, sample.input_ids, sample.labels)


@pytest.mark.parametrize("template", _BLOCKS)
def test_an_empty_block_trains_or_is_masked(template):
    trained, masked = _sample(template), _sample(template, empty_reasoning="mask")
    block = _BLOCKS[template]
    *_, last = _trained(template, trained)
    assert last.startswith(f"{block}Potoroo two")
    assert _trained(template, masked)[-1] == last.removeprefix(block)
    assert torch.equal(masked.input_ids, trained.input_ids)


@pytest.mark.parametrize("template", _BLOCKS)
def test_an_empty_block_is_dropped_from_the_prompt(template):
    tokenizer = processor_with(template).tokenizer
    trained, dropped = _sample(template), _sample(template, empty_reasoning="drop")
    text = tokenizer.decode(dropped.input_ids)
    assert "think>" not in text
    assert "Potoroo two" in text
    assert (
        _trained(template, dropped)[-1]
        == _trained(template, _sample(template, empty_reasoning="mask"))[-1]
    )
    assert len(dropped) < len(trained)


@pytest.mark.parametrize("template", _BLOCKS)
@pytest.mark.parametrize("policy", ["mask", "drop"])
def test_reasoning_with_words_is_untouched(template, policy):
    expected = _sample(template, _REASONS[2:])
    found = _sample(template, _REASONS[2:], empty_reasoning=policy)
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("policy", ["mask", "drop"])
def test_a_block_that_the_prompt_holds_is_untouched(policy):
    kwargs = {"template_kwargs": {"enable_thinking": False}}
    expected = _sample("qwen3_5_think", **kwargs)
    found = _sample("qwen3_5_think", empty_reasoning=policy, **kwargs)
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("policy", ["mask", "drop"])
def test_a_block_that_the_answer_itself_spells(policy):
    chat = [_CHAT[0], {"role": "assistant", "content": "<think>\n\n</think>\n\nNumbat one"}]
    found = _sample("qwen2_5", chat, empty_reasoning=policy)
    assert _trained("qwen2_5", found) == ["Numbat one<|im_end|>"]


def test_an_empty_answer_keeps_its_stop_token():
    chat = [_CHAT[0], {"role": "assistant", "content": ""}]
    for policy in ("mask", "drop"):
        (found,) = _trained("qwen3", _sample("qwen3", chat, empty_reasoning=policy))
        assert found == "<|im_end|>"


def test_another_policy_is_refused():
    with pytest.raises(ConfigError, match="empty_reasoning must be one of"):
        collator_for(processor_with("qwen3"), empty_reasoning="keep")  # type: ignore[arg-type]


@pytest.mark.parametrize(("policy", "noted"), [("train", 1), ("mask", 0), ("drop", 0)])
def test_a_block_is_noted_if_a_token_of_its_own_trains(policy, noted):
    chat = [_CHAT[0], {"role": "assistant", "content": "<think></think>Numbat one"}]
    collator = collator_for(build("qwen2_5_vl"), empty_reasoning=policy)  # joins the end and Num
    assert [n.kind for n in collator.explain(chat).turn_notes] == ["empty_reasoning"] * noted


_EMPTY_ANSWERS = ("<think></think>Numbat one", "<think>\n\n</think>\n\nNumbat one", "Numbat one")


class _OwnRender(DefaultCollator):
    """Overrides the stage that renders."""

    def render(self, conversation):
        return super().render(conversation)


@pytest.mark.parametrize("policy", ["train", "mask", "drop"])
@pytest.mark.parametrize("make", [collator_for, _OwnRender])
@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_5_think", "glm4moe", "gemma4"])
@pytest.mark.parametrize("first", _EMPTY_ANSWERS)
def test_a_prompt_holds_earlier_answers_as_they_train(policy, make, template, first):
    chat = [_CHAT[0], {"role": "assistant", "content": first}, *_CHAT[2:]]
    collator = make(
        processor=processor_with(template), empty_reasoning=policy, on_template_omission="allow"
    )
    decode = collator.processor.tokenizer.decode
    trained = decode(collator.encode(chat).input_ids)
    prompt = decode(collator.prompt(chat).encoded.input_ids)
    before, question, _ = trained.partition("Bilby?")
    assert question
    assert prompt.startswith(before + question)


@pytest.mark.parametrize("policy", ["train", "mask", "drop"])
@pytest.mark.parametrize("first", _EMPTY_ANSWERS)
def test_a_rollout_holds_given_answers_as_they_train(policy, first):
    processor = processor_with("qwen2_5")
    collator = collator_for(processor, empty_reasoning=policy)
    given = [*_CHAT[2:3], {"role": "assistant", "content": first}, _CHAT[0]]
    prompt = collator.prompt(_CHAT[:1]).extended(processor.tokenizer("Yes<|im_end|>").input_ids)
    chat = [_CHAT[0], {"role": "assistant", "content": "Yes"}, *given]
    whole = collator.prompt(chat)
    assert prompt.followed_by(given).text.endswith(whole.text.partition("Yes<|im_end|>")[2])
    assert ("<think>" in whole.text) == ("<think>" in first and policy != "drop")


def test_a_last_turn_that_loses_the_end_of_its_prompt_is_refused_or_noted():
    """The prompt opens the block that the template closes in the answer."""
    options = {"processor": processor_with("qwen3_5_think"), "empty_reasoning": "drop"}
    with pytest.raises(LabelError, match="lacks the end of its generation prompt") as caught:
        collator_for(**options, off_prompt="error").encode(_CHAT)
    assert "expected '<think>' before it" in str(caught.value)
    assert 'set empty_reasoning="mask"' in str(caught.value)
    assert "set template_kwargs={'enable_thinking': False}" in str(caught.value)
    (note,) = collator_for(**options).explain(_CHAT[:2]).turn_notes
    assert (note.kind, note.detail, note.has_last) == ("off_prompt", "<think>", True)
    for remedy in ({"template_kwargs": {"enable_thinking": False}}, {"empty_reasoning": "mask"}):
        collator_for(**{**options, **remedy}, off_prompt="error").encode(_CHAT)


def test_an_earlier_turn_that_loses_the_end_of_its_prompt_is_noted_as_such():
    collator = collator_for(
        processor_with("qwen3_5_think"), empty_reasoning="drop", off_prompt="error"
    )
    (note,) = collator.explain([*_CHAT[:3], _REASONS[3]]).turn_notes
    assert (note.kind, note.messages, note.has_last) == ("off_prompt", (1,), False)


@pytest.mark.parametrize("policy", ["train", "mask", "drop"])
@pytest.mark.parametrize("answer", [*_EMPTY_ANSWERS, "<think></think>Numbat one\n"])
@pytest.mark.parametrize("strategy", [TextSearchLabels(), TemplateMarkerLabels()], ids=repr)
def test_strategies_agree_on_a_block_that_the_answer_spells(policy, answer, strategy):
    chat = [_CHAT[0], {"role": "assistant", "content": answer}, *_CHAT[2:]]
    usual = _sample("qwen2_5", chat, empty_reasoning=policy)
    found = _sample("qwen2_5", chat, empty_reasoning=policy, labels=strategy)
    assert torch.equal(found.labels, usual.labels)
