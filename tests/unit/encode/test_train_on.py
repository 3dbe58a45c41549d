"""The choice of what trains: turns, and the parts of each answer."""

from __future__ import annotations

import itertools
import pickle
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.decoding import trained_texts
from tests.processors.published_templates import processor_with
from vlmcollate import PartWeights, Reasoning, collator_for
from vlmcollate.encode.train_on import part_weights
from vlmcollate.errors import ConfigError, LabelError, StrategyError

_CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "Lyon"}}}
_CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "Quokka?"},
    {
        "role": "assistant",
        "content": "Numbat one",
        "reasoning_content": "Ponder deep",
        "tool_calls": [_CALL],
    },
    {"role": "tool", "content": "12"},
    {"role": "assistant", "content": "It is 12.", "reasoning_content": "Read it"},
]
_TEMPLATES = ("qwen3", "qwen3_5_think", "glm4moe", "lfm2_2_5_vl", "nemotron_3_nano")


def _sample(train_on, template="qwen3", chat=_CHAT, **options):
    collator = collator_for(processor_with(template), train_on=train_on, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return collator.encode(chat)


def _trained(train_on, template="qwen3", chat=_CHAT, **options):
    sample = _sample(train_on, template, chat, **options)
    tokenizer = processor_with(template).tokenizer
    return trained_texts(tokenizer, sample.input_ids, sample.labels)


def test_reasoning_does_not_train_with_or_without_what_closes_it():
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "Lyon"}}\n</tool_call>'
    text = f"\n\nNumbat one\n{call}"
    last = "\n\nIt is 12.<|im_end|>"
    assert _trained(Reasoning(train=False)) == [f"{text}<|im_end|>", last]
    assert _trained(Reasoning(train=False, train_end=True)) == [
        f"</think>{text}<|im_end|>",
        f"</think>{last}",
    ]
    assert _trained(Reasoning(train=True)) == _trained("all_turns")


def test_the_reasoning_that_the_prompt_opens_does_not_train_either():
    assert _trained(Reasoning(train=False), "qwen3_5_think")[1] == "\n\nIt is 12.<|im_end|>"


def test_reasoning_written_as_text_counts_as_reasoning():
    chat = [_CHAT[0], {"role": "assistant", "content": "<think>\nPonder\n</think>\n\nNumbat"}]
    assert _trained(Reasoning(train=False), "qwen2_5", chat) == ["\n\nNumbat<|im_end|>"]


def test_only_tool_calls_train_with_the_token_that_ends_them():
    assert _trained("tool_calls", "lfm2_2_5_vl") == [
        "<|tool_call_start|>[look(at='Lyon')]<|tool_call_end|><|im_end|>"
    ]
    assert _trained("tool_calls", "glm4moe") == [
        "\n<tool_call>look\n<arg_key>at</arg_key>\n<arg_value>Lyon</arg_value>\n</tool_call>"
        "<|observation|>"
    ]
    with pytest.raises(LabelError, match="train_on chooses"):
        _trained("tool_calls", chat=_CHAT[:1] + _CHAT[3:])


def test_choices_are_multiplied():
    assert _trained(("last_turn", Reasoning(train=False))) == ["\n\nIt is 12.<|im_end|>"]
    halves = (PartWeights(reasoning=0.5), PartWeights(reasoning=0.5, text=3))
    assert part_weights(halves) == PartWeights(text=3, reasoning=0.25, reasoning_end=0.25)
    assert part_weights(("all_turns", Reasoning())) is None


def test_a_function_chooses_messages_and_gives_weights():
    def with_calls(message):
        return "tool_calls" in message.extra

    (found,) = _trained(with_calls)
    assert "Ponder deep" in found
    sample = _sample(lambda message: 0.25 if message.text.startswith("It") else True)
    assert sorted(set(sample.tokens["loss_weights"].tolist())) == [0.0, 0.25, 1.0]


@pytest.mark.parametrize("answer", ["yes", None, -1, float("nan"), float("inf"), [True]])
def test_a_function_that_returns_no_weight_is_named(answer):
    def chooses(message):
        return answer

    with pytest.raises(StrategyError, match=r"messages\[1\].*chooses.*a bool, or a weight"):
        _sample(chooses)


def test_a_function_that_fails_is_named():
    def chooses(message):
        return message.extra["model"]

    with pytest.raises(StrategyError, match=r"messages\[1\].*chooses failed: KeyError"):
        _sample(chooses)


@pytest.mark.parametrize("template", _TEMPLATES)
def test_the_parts_cover_each_answer_once(template):
    whole = _sample("all_turns", template).labels != -100
    parts = [
        _sample(PartWeights(**{name: float(name == chosen) for name in names}), template).labels
        for names in [("text", "reasoning", "reasoning_end", "tool_calls")]
        for chosen in names
    ]
    counts = torch.stack([part != -100 for part in parts]).sum(dim=0)
    assert torch.equal(counts, whole.long())
    assert all((part != -100).any() for part in parts)


@given(
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=4, max_size=4),
    message=st.sampled_from([0.5, 1.0, 3.0]),
    template=st.sampled_from(_TEMPLATES),
)
def test_weights_of_parts_multiply_those_of_messages(weights, message, template):
    names = ("text", "reasoning", "reasoning_end", "tool_calls")
    chat = [{**m, "weight": message} if m["role"] == "assistant" else m for m in _CHAT]
    options = {"require_labels": False}
    each = [
        _sample(PartWeights(**{n: float(n == name) for n in names}), template, **options)
        for name in names
    ]
    expected = sum(
        weight * message * (sample.labels != -100).float()
        for weight, sample in zip(weights, each, strict=True)
    )
    found = _sample(
        PartWeights(**dict(zip(names, weights, strict=True))), template, chat, **options
    )
    given_weights = found.tokens.get("loss_weights", (found.labels != -100).float())
    assert torch.equal(given_weights, expected)
    assert torch.equal(found.labels != -100, expected > 0)


def test_a_product_that_float32_cannot_hold_is_refused():
    for weight in (1e30, 1e-30):
        chat = [{**m, "weight": weight} if m["role"] == "assistant" else m for m in _CHAT]
        with pytest.raises(LabelError, match="float32 cannot hold"):
            _sample(PartWeights(text=weight), chat=chat)


@pytest.mark.parametrize(
    "wrong",
    ["first_turn", "", None, 3, True, Reasoning, int, ["all_turns", "x"], ("last_turn", None)],
)
def test_a_wrong_choice_is_refused(wrong):
    with pytest.raises(ConfigError, match="train_on must be one of"):
        collator_for(processor_with("qwen3"), train_on=wrong)


@pytest.mark.parametrize("name", ["text", "reasoning", "reasoning_end", "tool_calls"])
@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf"), "1", True])
def test_a_wrong_weight_is_refused(name, weight):
    with pytest.raises(ConfigError, match=f"{name} must be a finite weight"):
        PartWeights(**{name: weight})


@pytest.mark.parametrize("name", ["train", "train_end"])
def test_reasoning_takes_bools(name):
    options: dict[str, Any] = {"train": True, name: "no"}
    with pytest.raises(ConfigError, match=f"{name} must be a bool"):
        Reasoning(**options)


def test_values_survive_pickling():
    for choice in ("tool_calls", Reasoning(train=False), PartWeights(text=0.5)):
        collator = pickle.loads(
            pickle.dumps(collator_for(processor_with("qwen3"), train_on=choice))
        )
        assert collator.train_on == choice
        assert torch.equal(collator.encode(_CHAT).labels, _sample(choice).labels)


@pytest.mark.parametrize("template", _TEMPLATES)
def test_parts_are_found_in_every_shape_of_answer(template):
    """Each of reasoning, text and calls may be missing."""
    for reasons, says, calls in itertools.product([False, True], repeat=3):
        if not says and not calls:
            continue
        answer: dict[str, Any] = {"role": "assistant", "content": "Numbat one" if says else ""}
        answer |= {"reasoning_content": "Ponder deep"} if reasons else {}
        answer |= {"tool_calls": [_CALL]} if calls else {}
        chat = [_CHAT[0], answer]
        found = {
            name: "".join(_trained(choice, template, chat, require_labels=False))
            for name, choice in (
                ("reasoning", PartWeights(text=0, tool_calls=0)),
                ("text", PartWeights(reasoning=0, tool_calls=0)),
                ("calls", "tool_calls"),
            )
        }
        words = {"reasoning": "Ponder", "text": "Numbat", "calls": "Lyon"}
        present = {"reasoning": reasons, "text": says, "calls": calls}
        for part, word in words.items():
            for name, text in found.items():
                assert (word in text) == (name == part and present[part]), (part, name, text)
