"""The parts of answers with every chat template that a package carries."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any

import pytest

from tests.conftest import NIGHTLY
from tests.template_corpus import TOOLS, judge, templates
from vlmcollate import PartWeights, collator_for
from vlmcollate.errors import SampleError

TEMPLATES = templates()
WITH_CALLS = [name for name, template in TEMPLATES.items() if "tool_calls" in template]
TRIED = WITH_CALLS if NIGHTLY else [*WITH_CALLS[::4], "trl/gemma4"]
WEIGHTS = PartWeights(reasoning=0.25, text=2, tool_calls=3)
OF_WORDS = {"Ponder": 0.25, "Numbat": 2, "Lyon": 3}
_FUNCTION = {"name": "lookup", "arguments": {"place": "Lyon"}}
_CALLS = {"tool_calls": [{"type": "function", "id": "call00000", "function": _FUNCTION}]}
_RESULT = {"role": "tool", "content": "12", "name": "lookup", "tool_call_id": "call00000"}
ANSWERS: dict[str, dict[str, Any]] = {
    "reasoning in the text": {"content": "<think>\nPonder\n</think>\n\nNumbat"},
    "reasoning under a key": {"content": "Numbat", "reasoning_content": "Ponder"},
    "empty reasoning": {"content": "<think>\n\n</think>\n\nNumbat"},
    "text": {"content": "Numbat"},
}


def weights_of_words(collator, sample):
    """Returns the weights of the trained tokens in which each word of the answer is found."""
    tokens: dict[float, list[int]] = {}
    weights = sample.tokens.get("loss_weights")
    for i in (sample.labels != -100).nonzero().flatten().tolist():
        weight = 1.0 if weights is None else float(weights[i])
        tokens.setdefault(weight, []).append(int(sample.input_ids[i]))
    texts = {weight: collator.processor.tokenizer.decode(ids) for weight, ids in tokens.items()}
    return {w: {weight for weight, text in texts.items() if w in text} for w in OF_WORDS}


@pytest.mark.parametrize("name", TRIED)
def test_every_word_has_the_weight_of_its_part(name):
    processor, served = judge(TEMPLATES[name]).processor, 0
    for kind, answer in ANSWERS.items():
        if kind == "text" and "gptoss" in name:  # which writes text before a call as reasoning
            continue
        chat = [{"role": "user", "content": "Quokka?"}, {"role": "assistant", **answer, **_CALLS}]
        longer = [*chat, _RESULT, {"role": "assistant", "content": "Done"}]
        for messages, splits in product((chat, longer), (False, True)):
            collator, samples = _collated(processor, messages, splits)
            for word, found in _found(collator, samples):
                assert found <= {OF_WORDS[word]}, (kind, word)
                served += bool(found)
    if not served:
        pytest.skip("every chat is refused")


@pytest.mark.parametrize("name", TRIED)
def test_what_ends_a_turn_of_calls_belongs_to_them(name):
    for kind, answer in ANSWERS.items():
        chat = [{"role": "user", "content": "Quokka?"}, {"role": "assistant", **answer, **_CALLS}]
        collator, samples = _collated(judge(TEMPLATES[name]).processor, chat, splits=False)
        if any(word == "Lyon" and found for word, found in _found(collator, samples)):
            (weights,) = (sample.tokens["loss_weights"] for sample in samples)
            assert weights[weights > 0][-1] == 3, kind


def _collated(processor, messages, splits):
    """Returns a collator and the samples of a chat, none if the chat is refused."""
    collator = collator_for(
        processor,
        train_on=WEIGHTS,
        on_template_omission="allow",
        on_unread="allow",
        split_turns=splits,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return collator, collator.encode_all({"messages": messages, "tools": TOOLS})
        except SampleError:
            return collator, []


def _found(collator, samples):
    """Yields each word of the answer with the weights of the tokens that spell it."""
    for sample in samples:
        yield from weights_of_words(collator, sample).items()
