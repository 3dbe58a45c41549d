"""The characters of tokens, found by their bytes, are the tokenizer's own offsets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.processors import processor_of
from vlmcollate.tokens.vocabulary import TokenSpans, Vocabulary

FAMILIES = ("qwen2_5_vl", "gemma3", "mllama")
PIECES = st.sampled_from(
    [
        "<|im_end|>",
        "<bos>",
        "\n\n",
        "  ",
        "▁",
        "Ġ",
        "<0x0A>",
        "naïve",
        "e\u0301",
        "日本",
        "🏳️‍🌈",
        "Ⅳ",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join)


def _vocabulary(name):
    return Vocabulary.of(processor_of(name).tokenizer)


def _characters(tokens):
    return [*zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)]


def _check(vocabulary, text):
    spans = TokenSpans(vocabulary.backend, [vocabulary.id_of(t) for t in vocabulary.added])
    for backend in (vocabulary.control, vocabulary.plain):
        encoding = backend.encode(text, add_special_tokens=False)
        found = spans.find(text, encoding.ids)
        if found is not None:
            assert found.ids.tolist() == encoding.ids
            assert _characters(found) == encoding.offsets
    return found is not None


@pytest.mark.parametrize("name", FAMILIES)
@given(TEXTS)
def test_the_characters_are_the_offsets(name, text):
    _check(_vocabulary(name), text)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("text", ["It's 12 tokens:\n\n  x = 'a'\t", "Überraschung im Café", ""])
def test_usual_text_is_found(name, text):
    assert _check(_vocabulary(name), text)


@pytest.mark.parametrize("text", ["e\u0301", "日本🏳️‍🌈語", "\ud800"])
def test_what_is_not_certain_is_left_to_the_tokenizer(text):
    """A normaliser composes characters, and a token may hold a part of one."""
    vocabulary = _vocabulary("qwen2_5_vl")
    spans = TokenSpans(vocabulary.backend, [])
    ids = [] if text == "\ud800" else vocabulary.control.encode(text).ids
    assert spans.find(text, ids) is None
    if text != "\ud800":
        encoding = vocabulary.control.encode(text, add_special_tokens=False)
        tokens = vocabulary.encode(text)
        assert _characters(tokens) == encoding.offsets


def test_a_tokenizer_that_changes_text_is_left_to_its_offsets():
    backend = Tokenizer(models.WordLevel({"word": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    spans = TokenSpans(backend, [])
    assert spans.find("Word", backend.encode("Word").ids) is None
    assert spans.find("word other", backend.encode("word other").ids) is None
    assert spans.find("word", [7]) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_those_of_the_tokenizer_whether_or_not_it_needs_offsets(name):
    """A text that is normalised leaves the next text to the offsets, and that one the fast way."""
    vocabulary = _vocabulary(name)
    for text in ("plain words", "e\u0301 Ⅳ", "日本🏳️‍🌈語", "more words", "", "last\n\n words"):
        expected = vocabulary.control.encode(text, add_special_tokens=False)
        found = vocabulary.encode(text)
        assert found.ids.tolist() == expected.ids
        assert _characters(found) == expected.offsets


def test_a_text_that_cannot_be_found_does_without_the_fast_way_afterwards():
    vocabulary = _vocabulary("qwen2_5_vl")
    spans = TokenSpans(vocabulary.backend, [])
    assert spans.encode(vocabulary.control, "words") is not None
    assert spans.encode(vocabulary.control, "e\u0301") is None
    assert spans.encode(vocabulary.control, "words") is None
    assert spans.find("words", vocabulary.control.encode("words").ids) is not None
    assert spans.encode(vocabulary.control, "words") is not None
