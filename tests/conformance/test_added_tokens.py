"""Tokens that are added to a tokenizer after a collator was made for it."""

from __future__ import annotations

import time

import pytest
from tokenizers import AddedToken

from tests.processors import build, processor_of
from vlmcollate import collator_for
from vlmcollate.tokens.vocabulary import Vocabulary

_CHAT = [
    {"role": "user", "content": [{"type": "text", "text": "Say"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a  <think>  b cat <new> z"}]},
]
_CHANGES = {
    "added again, to the left": [AddedToken("<think>", lstrip=True)],
    "a word, and both sides of it": [AddedToken("cat", lstrip=True, rstrip=True)],
}


@pytest.mark.parametrize("change", _CHANGES)
def test_ids_are_those_of_the_tokenizer_as_it_is_now(change):
    processor = build("qwen3_vl")
    old = collator_for(processor)
    before = old([_CHAT])["input_ids"][0].tolist()
    processor.tokenizer.add_tokens(_CHANGES[change])
    text = processor.apply_chat_template(_CHAT)
    expected = processor.tokenizer(text)["input_ids"]
    assert before != expected
    assert old([_CHAT])["input_ids"][0].tolist() == expected
    assert old.encode(_CHAT).input_ids.tolist() == expected
    assert collator_for(processor).encode(_CHAT).input_ids.tolist() == expected


def test_a_question_spells_a_token_that_is_new():
    processor = build("qwen3_vl")
    collator = collator_for(processor)
    asked = [{"role": "user", "content": "see <new> "}, {"role": "assistant", "content": "<new>"}]
    collator.encode(asked)
    processor.tokenizer.add_tokens([AddedToken("<new>", lstrip=True)])
    new = processor.tokenizer.convert_tokens_to_ids("<new>")
    assert (collator.encode(asked).input_ids == new).sum() == 1


def test_the_check_is_cheap():
    words = processor_of("qwen3_vl").tokenizer
    Vocabulary.of(words)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        Vocabulary.of(words)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.001
