"""Snapshots of rows against later writes to them, and streams of a mixture that reuse a row."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from vlmcollate.mixture import IterableMixture
from vlmcollate.mixture.row_snapshot import snapshot


class Named(dict[str, Any]):
    """A dictionary with an attribute."""

    name = ""


class Lazy(dict[str, Any]):
    """A dictionary whose values are made when they are set."""

    def __setitem__(self, key, value):
        super().__setitem__(key, [value])


def filled(kind, items):
    kind.update(items)
    return kind


@pytest.mark.parametrize(
    "row",
    [
        {"a": [{"b": "x"}]},
        [{"a": [1]}],
        filled(OrderedDict(), {"z": [1], "a": {"b": [2]}}),
        filled(defaultdict(list), {"a": [1]}),
        filled(Named(), {"a": [1]}),
        ({"a": [1]}, ("x", [2])),
    ],
    ids=lambda row: type(row).__name__,
)
def test_later_writes_do_not_reach_a_snapshot(row):
    before, found = repr(row), snapshot(row)
    assert (repr(found), type(found)) == (before, type(row))
    waiting = [row]
    while waiting:
        value = waiting.pop()
        items = [*(value.values() if isinstance(value, dict) else value)]
        waiting += [item for item in items if isinstance(item, dict | list | tuple)]
        if not isinstance(value, tuple):
            value.clear()
    assert repr(found) == before


def test_what_is_no_plain_container_is_shared():
    pixels, lazy, wrapped = np.zeros(3), Lazy(a=1), UserDict(a=[1])
    row = {"image": pixels, "lazy": lazy, "wrapped": wrapped, "name": "x"}
    found = snapshot(row)
    assert found is not row
    assert all(found[key] is value for key, value in row.items())
    assert snapshot(pixels) is pixels


def test_names_of_one_container_stay_one():
    inner: list[Any] = []
    inner.append(inner)
    found = snapshot({"a": inner, "b": (inner, inner)})
    assert found["a"] is not inner
    assert found["a"] is found["a"][0] is found["b"][0] is found["b"][1]


def test_a_row_may_be_nested_deeply():
    row: list[Any] = ["end"]
    for _ in range(100_000):
        row = [row]
    found = snapshot(row)
    while len(row) and row[0] != "end":
        assert row is not found
        row, found = row[0], found[0]
    assert found == ["end"]
    nested: Any = ()
    for _ in range(100_000):
        nested = (nested,)
    assert snapshot({"a": nested})["a"] is nested


def test_a_stream_of_a_mixture_may_reuse_its_row():
    def numbers():
        row: dict[str, Any] = {"numbers": []}
        for number in range(4):
            row["numbers"][:] = [number]
            yield row

    mixture = IterableMixture({"a": (numbers, 1)}, seed=1, samples=4)
    (batch,) = DataLoader(mixture, batch_size=4, collate_fn=list)
    assert [row.row for row in batch] == [{"numbers": [number]} for number in range(4)]
