"""Texts that are encoded again at cuts, against those that are encoded in parts from the start."""

from __future__ import annotations

import copy
import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from tests.conftest import NIGHTLY
from tests.processors import BUILDERS, build, processor_of
from vlmcollate.tokens import vocabulary as module
from vlmcollate.tokens.vocabulary import Vocabulary

WORDS = [
    "naïve",
    "中文",
    "👩‍👧",
    "e\u0301",
    "\u0301",
    "\n\n",
    " ",
    " x",
    "\t",
    "12345",
    "ß",
    "a-b",
    ".",
]


def _same(vocabulary: Vocabulary, text: str, cuts: list[int]) -> bool:
    """Returns whether both ways agree, in every id and offset."""
    whole = vocabulary.encode(text)
    found, expected = vocabulary.recut(text, whole, cuts), vocabulary.encode(text, cuts)
    return all(
        getattr(found, name).tolist() == getattr(expected, name).tolist()
        for name in ("ids", "starts", "ends")
    )


def _drawn(vocabulary: Vocabulary, draw: random.Random) -> tuple[str, list[int]]:
    """Returns a text with control tokens, and one to six cuts."""
    controls = [*draw.sample(sorted(vocabulary.added), min(6, len(vocabulary.added)))]
    pieces = draw.choices([*WORDS, *controls, *controls], k=draw.randint(2, 30))
    text = "".join(pieces)
    return text, sorted(draw.sample(range(1, len(text)), min(draw.randint(1, 6), len(text) - 1)))


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_both_ways_agree_with_the_tokenizer_of_every_family(name):
    vocabulary = Vocabulary.of(processor_of(name).tokenizer)
    if vocabulary.prefixes_a_space:
        pytest.skip("this tokenizer encodes no part of a text separately")
    draw = random.Random(name)
    for _ in range(150 if NIGHTLY else 50):
        text, cuts = _drawn(vocabulary, draw)
        assert _same(vocabulary, text, cuts), (text, cuts)


@cache
def _with_odd_tokens() -> Vocabulary:
    tokenizer = copy.deepcopy(build("qwen2_vl").tokenizer)
    tokenizer.add_tokens(
        [
            AddedToken("<l>", lstrip=True, normalized=False),
            AddedToken("<r>", rstrip=True, normalized=False),
            AddedToken("<b>x", lstrip=True, rstrip=True, normalized=False, special=True),
            AddedToken("<n>é", normalized=True),
            AddedToken("<r><l>", normalized=False),
        ]
    )
    return Vocabulary.of(tokenizer)


@given(
    st.lists(
        st.sampled_from([*WORDS, "<l>", "<r>", "<b>x", "<n>é", "<n>e\u0301", "<r", "<|im_end|>"]),
        min_size=2,
        max_size=12,
    ).map("".join),
    st.lists(st.integers(1, 60), min_size=1, max_size=5, unique=True),
)
def test_both_ways_agree_with_tokens_that_swallow_whitespace(text, cuts):
    within = sorted(cut for cut in cuts if cut < len(text))
    assert not within or _same(_with_odd_tokens(), text, within)


def test_tokens_of_whole_words_are_no_borders():
    tokenizer = copy.deepcopy(build("qwen2_vl").tokenizer)
    tokenizer.add_tokens([AddedToken("wombat", single_word=True, normalized=False)])
    vocabulary = Vocabulary.of(tokenizer)
    text = "<|im_start|>xwombat wombatx<|im_end|>"
    for cut in range(1, len(text)):
        assert _same(vocabulary, text, [cut])


def test_only_the_text_around_a_cut_is_encoded_again(monkeypatch):
    vocabulary = Vocabulary.of(processor_of("qwen2_vl").tokenizer)
    turn = "<|im_start|>user\n Where?<|im_end|>\n"
    text = turn * 50
    vocabulary._parts.clear()
    whole, seen = vocabulary.encode(text), []
    assert vocabulary._borders.any()  # found once, by encoding each control token
    encode = module._encode

    def counting(backend, part, *others):
        seen.append(part)
        return encode(backend, part, *others)

    monkeypatch.setattr(module, "_encode", counting)
    vocabulary.recut(text, whole, [len(turn) * 7 + turn.index(" Where")])
    assert seen == ["user\n", " Where?"]
