"""The conversations of a corpus are equal in whatever format they come."""

from __future__ import annotations

import warnings

import pytest

from tests.unit.formats.corpus import FORMATS, SIZE, corpus, expected, found, rows
from vlmcollate.formats import read_example
from vlmcollate.formats.registry import REGISTERED

FEWEST = {"prompt and completion as text": 20, "prompt and completion": 100}
"""Rows of formats in which few conversations of the corpus can stand; of the others, 100."""


@pytest.mark.parametrize("name", FORMATS)
def test_a_conversation_is_the_same_in_every_format(name):
    if name in ("pandas", "Arrow"):
        pytest.importorskip("pyarrow")
        pytest.importorskip("pandas")
    format_name, _ = FORMATS[name]
    number = 0
    for chat, row in rows(name):
        number += 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = read_example(row, on_unread="raise")
            stated = read_example(row, format_name, on_unread="raise")
        assert read.format == format_name
        assert found(read) == expected(chat), row
        assert found(stated) == expected(chat), row
    assert number >= FEWEST.get(name, 100)


def test_the_corpus_is_written_in_every_format_that_auto_tries():
    assert {name for name, _ in FORMATS.values()} == {
        name
        for name, known in REGISTERED.items()
        if known.is_automatic and type(known).__module__.startswith("vlmcollate.")  # others' tests
    }
    assert len(corpus()) == SIZE
    assert corpus() == corpus()
    assert any(chat.images and not chat.images_are_first for chat in corpus())
    assert {turn.weight for chat in corpus() for turn in chat.turns} == {0, 0.5, 1}
