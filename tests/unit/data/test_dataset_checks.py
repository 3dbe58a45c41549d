"""Objects that look like a map-style dataset and are none are refused by name, with a remedy."""

from __future__ import annotations

import re

import numpy as np
import pytest

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor

ROW = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}],
}


def tables():
    import pandas as pd
    import pyarrow as pa

    yield pa.Table.from_pylist([ROW] * 3), "source.to_pylist()", lambda table: table.to_pylist()
    batch = pa.RecordBatch.from_pylist([ROW] * 3)
    yield batch, "source.to_pylist()", lambda table: table.to_pylist()
    frame = pd.DataFrame([ROW] * 3)
    remedy = 'source.to_dict("records")'
    yield frame, remedy, lambda frame: frame.to_dict("records")
    yield pd.DataFrame([[1, 2]]), remedy, None
    series = pd.Series([ROW] * 3, index=[5, 6, 7])
    yield series, "source.tolist()", lambda series: series.tolist()
    yield series[:0], "source.tolist()", None


@pytest.mark.parametrize("number", range(6))
def test_a_table_is_refused_with_the_call_that_lists_its_rows(tmp_path, number):
    pytest.importorskip("pandas")
    table, remedy, rows_of = list(tables())[number]
    collator = collator_for(tiny_processor())
    with pytest.raises(ConfigError) as caught:
        prepare_dataset(table, tmp_path / "out", collator=collator)
    name = type(table).__name__
    assert str(caught.value) == (
        f"the source is wrong: found a {name} of {type(table).__module__.partition('.')[0]}, which "
        f"has no rows by number, expected a list of rows or a dataset; pass {remedy}, or write a "
        "Parquet file and pass its path"
    )
    if rows_of is not None:
        manifest = prepare_dataset(rows_of(table), tmp_path / "out", collator=collator)
        assert manifest.samples == 3


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({0: ROW, 1: ROW}, "the keys 0, 1"),
        (dict.fromkeys(range(9), ROW), "the keys 0, 1, 2, 3, 4, ..."),
        ({("a", 1): ROW}, "the keys ('a', 1)"),
        ({"a": ROW, 1: ROW}, "the keys 'a', 1"),
        ({}, "no keys"),
    ],
)
def test_a_dictionary_of_rows_is_refused_by_its_keys(tmp_path, source, shown):
    with pytest.raises(ConfigError) as caught:
        prepare_dataset(source, tmp_path / "out", collator=collator_for(tiny_processor()))
    assert str(caught.value) == (
        f"the source is wrong: found a dict with {shown}, expected rows by number; pass "
        "list(source.values()) if the values are the rows"
    )


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"train": [ROW]}, "train"),
        ({"train": [ROW], "test": []}, "train, test"),
        ({key: [ROW] for key in "abcdefg"}, "a, b, c, d, e, ..."),
    ],
)
def test_splits_are_named(tmp_path, source, shown):
    message = f"the source holds the splits {shown}; pass one of them"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        prepare_dataset(source, tmp_path / "out", collator=collator_for(tiny_processor()))


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"messages": ROW["messages"]}, "'messages'"),
        ({"conversations": ROW["messages"], "id": 3}, "'conversations', 'id'"),
        ({"question": "Why?", "answer": "So."}, "'question', 'answer'"),
    ],
)
def test_one_row_is_named(tmp_path, source, shown):
    with pytest.raises(ConfigError) as caught:
        prepare_dataset(source, tmp_path / "out", collator=collator_for(tiny_processor()))
    assert str(caught.value) == (
        f"the source is wrong: found one row, with the keys {shown}, expected rows by number; pass "
        "[source], a list of rows"
    )


def test_arrays_of_rows_are_datasets(tmp_path):
    pa = pytest.importorskip("pyarrow")
    sources = [np.array([ROW] * 3, object), pa.array([ROW] * 3), pa.chunked_array([[ROW] * 3])]
    for number, source in enumerate(sources):
        folder = tmp_path / str(number)
        manifest = prepare_dataset(source, folder, collator=collator_for(tiny_processor()))
        assert manifest.samples == 3
