"""The samples of `split_turns` are those of the turns that train, and hide no omission."""

from __future__ import annotations

import itertools
import re
import warnings
from typing import Any

import pytest
import torch

from tests.processors import build
from vlmcollate import PartWeights, Reasoning, collator_for
from vlmcollate.errors import ConversationError, LabelError, TemplateOmissionWarning

CALL = [{"type": "function", "function": {"name": "look", "arguments": {"place": "X"}}}]
ANSWERS: dict[str, dict[str, Any]] = {
    "text": {"content": "Yes."},
    "reasoning": {"content": "Yes.", "reasoning_content": "Ponder"},
    "call": {"content": "Let me see.", "tool_calls": CALL},
    "bare call": {"content": "", "tool_calls": CALL},
    "nothing": {"content": ""},
    "thought": {"content": "<think>Ponder</think>"},
}
CHOICES: list[Any] = ["all_turns", "last_turn", "tool_calls", Reasoning(train=False)]


def _chat(*answers):
    messages = []
    for number, (kind, weight) in enumerate(answers):
        messages += [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "weight": weight, **ANSWERS[kind]},
        ]
    return messages


def _reported(encode, *arguments):
    """Returns the result, and the paths that are reported as omitted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TemplateOmissionWarning)
        result = encode(*arguments)
    return result, set(
        re.findall(r"messages\[\d+\][\w.\[\]]*", " ".join(str(w.message) for w in caught))
    )


def _alone(collator, chat, end):
    """Encodes the chat that ends with a message, and trains its last turn."""
    beginning = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in chat[:end]]
    return _reported(collator.encode, [*beginning, chat[end]])


@pytest.mark.parametrize("model", ["internvl", "qwen3_5", "qwen2_5_vl"])
@pytest.mark.parametrize("train_on", CHOICES, ids=str)
def test_the_samples_are_those_of_the_turns_that_train(model, train_on):
    options = {"train_on": train_on, "require_labels": False}
    whole, split = (collator_for(build(model), split_turns=s, **options) for s in (False, True))
    answers = list(itertools.product(ANSWERS, (0, 1)))
    for chat in itertools.starmap(_chat, itertools.product(answers, answers)):
        ends = (3,) if train_on == "last_turn" else (1, 3)
        alone = {end: _alone(whole, chat, end) for end in ends}
        trained = {k: v for k, v in alone.items() if (v[0].labels != -100).any()}
        encoders = split.turn_encoders(chat)
        if not trained:
            assert len(encoders) == 1
            continue
        assert len(encoders) == len(trained)
        for encode, (end, (expected, paths)) in zip(encoders, trained.items(), strict=True):
            found, reported = _reported(encode)
            assert torch.equal(found.input_ids, expected.input_ids)
            assert torch.equal(found.labels, expected.labels)
            apart = tuple(f"messages[{k}]" for k in trained if k < end)
            assert reported == {path for path in paths if not path.startswith(apart)}


def test_a_chat_with_an_empty_turn_is_served():
    split = collator_for(build("internvl"), split_turns=True, on_template_omission="allow")
    chat = _chat(("bare call", 1), ("text", 1))
    assert len(split.encode_all(chat)) == 1
    assert len(split([chat])["input_ids"]) == 1
    with pytest.raises(LabelError, match="nothing is trained"):
        split.encode_all(chat[:2])


@pytest.mark.parametrize("train_on", ["all_turns", "last_turn"])
def test_omissions_of_answers_without_a_sample_are_refused(train_on):
    options: Any = {"on_template_omission": "raise", "train_on": train_on}
    chat = _chat(("call", 0), ("text", 1))
    for splits in (False, True):
        collator = collator_for(build("internvl"), split_turns=splits, **options)
        with pytest.raises(ConversationError, match=r"omits messages\[1\]\.tool_calls"):
            collator.encode_all(chat)


GREETING = [{"role": "assistant", "content": "Hello."}, *_chat(("text", 1))]


def test_a_refusal_names_the_turn_of_its_sample():
    """Qwen3.5's template refuses a chat without a question."""
    collator = collator_for(build("qwen3_5"))
    assert collator.encode(GREETING)
    split = collator_for(build("qwen3_5"), split_turns=True)
    refused, answered = split.turn_encoders(GREETING)
    assert answered()
    problem = r"No user query found.*ends with messages\[0\]: set the weight of that message to 0"
    with pytest.raises(ConversationError, match=problem):
        refused()
    first = collator_for(
        build("qwen3_5"), split_turns=True, train_on=lambda message: message.text == "Hello."
    )
    with pytest.raises(ConversationError, match=problem):
        first.encode(GREETING)
    with pytest.raises(ConversationError) as caught:
        split.encode(GREETING[:1])
    assert "split_turns" not in str(caught.value)


@pytest.mark.parametrize("train_on", ["tool_calls", PartWeights(text=0, reasoning=0)], ids=str)
def test_a_refused_turn_that_does_not_train_makes_no_sample(train_on):
    collator = collator_for(build("qwen3_5"), split_turns=True, train_on=train_on)
    assert len(collator.encode_all([*GREETING, *_chat(("call", 1))])) == 1
    untrained = [{**GREETING[0], "weight": 0}, *GREETING[1:]]
    assert len(collator_for(build("qwen3_5"), split_turns=True).encode_all(untrained)) == 1
