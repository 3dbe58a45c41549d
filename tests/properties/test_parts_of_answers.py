"""Each token of an answer has the weight of the part that a slow rule, written apart, gives it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.decoding import trained_texts
from tests.processors import build
from vlmcollate import PartWeights, Reasoning, collator_for

_WORDS = (
    "I see",
    "The",
    " answer",
    "is 4",
    "2",
    ".",
    ",",
    "</b>",
    "<answer>",
    "!",
    "\n",
    "\n\n",
    " ",
    "é",
    "猫",
    "🦘",
)
TEXTS = st.lists(st.sampled_from(_WORDS), max_size=5).map("".join)
PROCESSORS = ("qwen2_5_vl", "gemma3", "smolvlm")


def _expected(processor, chat, parts):
    """Token by token: the weight of the last character that is no space, or of the last one."""
    prompt = processor.apply_chat_template(chat, tokenize=False)
    words = "".join(text for text, _ in parts)
    begin = prompt.rindex(words)
    of_char = [1.0] * len(prompt)
    at = begin
    for text, weight in parts:
        of_char[at : at + len(text)] = [weight] * len(text)
        at += len(text)
    found = processor.tokenizer(
        prompt, return_offsets_mapping=True, add_special_tokens=not prompt.startswith("<bos>")
    )
    weights = []
    for start, end in found["offset_mapping"]:
        inside = list(range(max(start, begin), min(end, at)))
        solid = [i for i in inside if not prompt[i].isspace()]
        weights.append(of_char[(solid or inside)[-1]] if inside else None)
    return found["input_ids"], weights


def _check(processor, chat, parts, sample):
    ids, expected = _expected(processor, chat, parts)
    assert sample.input_ids.tolist() == ids
    found = sample.tokens["loss_weights"].tolist()
    assert [w for w, e in zip(found, expected, strict=True) if e is not None] == [
        e for e in expected if e is not None
    ]


def _chat(answer):
    texts = {"user": "q", "assistant": answer}
    return [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in texts.items()]


@pytest.mark.parametrize("name", PROCESSORS)
@given(reasoning=TEXTS, text=TEXTS)
def test_reasoning_and_text(name, reasoning, text):
    processor, chat = build(name), _chat(f"<think>{reasoning}</think>{text}z")
    weights = PartWeights(reasoning=0.25, reasoning_end=0.5, text=0.75)
    sample = collator_for(processor, train_on=weights).encode(chat)
    parts = [(f"<think>{reasoning}", 0.25), ("</think>", 0.5), (f"{text}z", 0.75)]
    _check(processor, chat, parts, sample)


@pytest.mark.parametrize("name", PROCESSORS)
@given(reasoning=TEXTS, text=TEXTS)
def test_text_that_trains_never_loses_its_first_word(name, reasoning, text):
    processor, chat = build(name), _chat(f"<think>{reasoning}</think>{text}z")
    for choice, kept in (
        (Reasoning(train=False), f"{text}z"),
        (Reasoning(train=False, train_end=True), f"</think>{text}z"),
    ):
        sample = collator_for(processor, train_on=choice).encode(chat)
        (trained,) = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
        assert kept.strip() in trained


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm"])  # Gemma 3's template trims each part
@given(first=TEXTS, second=TEXTS, third=TEXTS)
def test_parts_with_weights_of_their_own(name, first, second, third):
    processor = build(name)
    texts = [(f"a{first}", 0.25), (f"{second}b", 0.5), (f"{third}z", None)]
    content = [
        {"type": "text", "text": text} | ({} if weight is None else {"weight": weight})
        for text, weight in texts
    ]
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": content, "weight": 0.75},
    ]
    sample = collator_for(processor).encode(chat)
    plain = [chat[0], {"role": "assistant", "content": [c | {"weight": None} for c in content]}]
    parts = [(text, 0.75 if weight is None else weight) for text, weight in texts]
    _check(processor, plain, parts, sample)
