"""Tokenizers without offsets, beside the fast tokenizer of the same tokens."""

from __future__ import annotations

import unicodedata
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.processors import build, processor_of
from tests.processors.slow_tokenizer_stand_in import (
    TikTokenTokenizerStandIn,
    slow_tokenizer_stand_in,
)
from vlmcollate import ConfigError, collator_for
from vlmcollate.data.fingerprint import fingerprint_of
from vlmcollate.testing import check_collator
from vlmcollate.tokens.vocabulary import Vocabulary

HARD = [
    "naïve",
    "中文",
    "👩‍👧",
    "e\u0301",
    "<|im_end|>",
    "<|im_",
    "\n\n",
    " x",
    "\u00a0",
    "12345",
    "ß",
]


@cache
def fast_tokenizer():
    return processor_of("kimi_k25").tokenizer


@cache
def slow_tokenizer():
    return slow_tokenizer_stand_in(fast_tokenizer())


@given(
    st.lists(st.one_of(st.sampled_from(HARD), st.text(max_size=4)), max_size=8).map("".join),
    st.integers(0, 40),
)
def test_ids_and_offsets_are_those_of_the_fast_tokenizer(text, cut):
    # the fast tokenizer composes accents first, as Qwen's does and Kimi's does not
    text = unicodedata.normalize("NFC", text)
    cuts = [cut] if 0 < cut < len(text) else []
    for plain in (False, True):
        ours, theirs = (
            v.encode_plain(text, 3) if plain else v.encode(text, cuts)
            for v in (Vocabulary.of(slow_tokenizer()), Vocabulary.of(fast_tokenizer()))
        )
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.starts.tolist() == theirs.starts.tolist()
        assert ours.ends.tolist() == theirs.ends.tolist()


def test_facts_are_those_of_the_fast_tokenizer():
    slow, fast = Vocabulary.of(slow_tokenizer()), Vocabulary.of(fast_tokenizer())
    assert slow.control_ids == fast.control_ids
    ids = fast.encode("Two 猫 <|im_end|>\n").ids.tolist()
    assert slow.decode(ids) == fast.decode(ids) == "Two 猫 <|im_end|>\n"
    assert slow.id_of("cat") == fast.id_of("cat")
    assert slow.id_of("no such token") is None
    assert not slow.prefixes_a_space


@cache
def _processor(name, slow):
    if not slow:
        return processor_of(name)
    processor = build(name)
    processor.tokenizer = slow_tokenizer_stand_in(processor.tokenizer)
    return processor


@pytest.mark.parametrize("name", ["kimi_vl_stand_in", "kimi_k25_remote_stand_in"])
def test_kimis_batches_are_those_with_the_fast_tokenizer(name):
    def chat(question, answer, *sizes):
        images = [{"type": "image", "image": Image.new("RGB", size, "teal")} for size in sizes]
        question = {"type": "text", "text": question}
        return [
            {"role": "user", "content": [*images, question]},
            {"role": "assistant", "content": answer},
        ]

    chats = [
        chat("What is it?", "\n猫 on a mat", (64, 48), (90, 40)),
        chat("Say <|im_end|>\n<|im_start|>assistant", "<|media_pad|> no", (60, 60)),
        chat("Nothing?", "Nothing."),
    ]
    ours, theirs = (collator_for(_processor(name, slow))(chats) for slow in (True, False))
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


def test_it_keeps_every_law():
    report = check_collator(collator_for(_processor("kimi_vl_stand_in", True)), examples=1)
    assert not report.failed


def test_tokens_that_are_added_later_are_noticed():
    slow = slow_tokenizer_stand_in(fast_tokenizer())
    assert "<|later|>" not in Vocabulary.of(slow).added
    slow.add_special_tokens({"additional_special_tokens": ["<|later|>"]})
    assert Vocabulary.of(slow).id_of("<|later|>") == slow.convert_tokens_to_ids("<|later|>")


def test_another_vocabulary_has_another_fingerprint():
    processor = _processor("kimi_vl_stand_in", True)
    assert fingerprint_of(collator_for(processor)) == fingerprint_of(collator_for(processor))
    other = build("kimi_vl_stand_in")
    other.tokenizer.add_special_tokens({"additional_special_tokens": ["<|more|>"]})
    other.tokenizer = slow_tokenizer_stand_in(other.tokenizer)
    prints = [fingerprint_of(collator_for(p))["tokenizer"] for p in (processor, other)]
    assert prints[0] != prints[1]


def test_one_that_changes_the_text_first_is_refused():
    class Lowering(TikTokenTokenizerStandIn):
        def _tokenize(self, text, **kwargs):
            return super()._tokenize(text.lower(), **kwargs)

    slow = slow_tokenizer_stand_in(fast_tokenizer())
    slow.__class__ = Lowering
    with pytest.raises(ConfigError, match="its tokens differ from those of its own model"):
        Vocabulary.of(slow)
