"""Streamed packs lose nothing, overflow nothing, and keep nobody waiting for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmcollate import ConfigError
from vlmcollate.errors import SampleTooLongError
from vlmcollate.packing import stream_packs


@given(st.lists(st.integers(1, 30), max_size=80), st.integers(1, 20))
def test_every_sample_is_in_one_pack_and_none_waits_long(lengths: list[int], size: int) -> None:
    samples = [range(i * 100, i * 100 + length) for i, length in enumerate(lengths)]
    read = 0

    def source():
        nonlocal read
        for sample in samples:
            read += 1
            yield sample

    seen = []
    for number, pack in enumerate(stream_packs(source(), max_length=30, buffer_size=size)):
        assert sum(map(len, pack)) <= 30
        seen += [sample.start // 100 for sample in pack]
        assert read - len(seen) <= size
        assert set(range(number + 1)) <= set(seen)  # the oldest goes first
    assert sorted(seen) == list(range(len(lengths)))


def test_what_does_not_fit() -> None:
    with pytest.raises(SampleTooLongError) as caught:
        list(stream_packs(["aa", "bbbb"], max_length=3))
    assert caught.value.index == 1
    own = list(stream_packs(["aa", "bbbb", "c"], max_length=3, on_overlong="own_pack"))
    assert own == [["bbbb"], ["aa", "c"]]
    dropped: list[str] = []
    packs = stream_packs(["aa", "bbbb"], max_length=3, on_overlong="drop", dropped=dropped.append)
    assert list(packs) == [["aa"]]
    assert dropped == ["bbbb"]


def test_bad_options_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"max_length": 0},
        {"max_length": "4"},
        {"max_length": None},
        {"buffer_size": 0},
        {"buffer_size": 1.5},
        {"on_overlong": "drop"},
    ]
    for options in bad:
        with pytest.raises(ConfigError):
            stream_packs(["a"], **{"max_length": 3, **options})
