"""The vectorised scans agree with slow ones written apart, on toy ids."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmcollate.errors import LabelError
from vlmcollate.extend import TurnMarkers
from vlmcollate.labels.text_search import find_pattern

IDS = st.lists(st.integers(0, 3), min_size=1, max_size=30)


def slow_find(ids, pattern):
    size = len(pattern)
    return [i for i in range(len(ids) - size + 1) if ids[i : i + size] == pattern]


@given(ids=IDS, pattern=st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_find_pattern(ids, pattern):
    found = find_pattern(np.array(ids), np.array(pattern)).tolist()
    assert found == slow_find(ids, pattern)


def slow_scan(ids, opener, stop):
    """Token by token: after an opener everything trains, to its stop; `None` if open."""
    mask, i = [False] * len(ids), 0
    while i < len(ids):
        if ids[i : i + len(opener)] == opener:
            i += len(opener)
            while i < len(ids) and ids[i] != stop:
                mask[i] = True
                i += 1
            if i == len(ids):
                return None
            mask[i] = True
        i += 1
    return mask


@given(
    turns=st.lists(
        st.tuples(st.lists(st.integers(4, 6), max_size=4), st.lists(st.integers(4, 6), max_size=4)),
        min_size=1,
        max_size=4,
    ),
    rows=st.integers(1, 3),
)
def test_scan_finds_what_a_slow_scan_finds(turns, rows):
    opener, stop, pad = [1, 2], 3, 0
    ids: list[int] = []
    for user, answer in turns:
        ids += [1, 7, *user, stop, *opener, *answer, stop]
    batch = torch.tensor([[*ids, pad, pad]] * rows)
    expected = slow_scan([*ids, pad, pad], opener, stop)
    found = TurnMarkers(openers=((1, 2),), stops=(3,)).scan(batch)
    assert found.tolist() == [expected] * rows


def test_scan_prefers_the_longer_opener():
    markers = TurnMarkers(openers=((1, 2), (1, 2, 8, 9)), stops=(3,))
    ids = torch.tensor([1, 2, 5, 3, 1, 2, 8, 9, 5, 3])
    assert markers.scan(ids).long().tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 1, 1]


def test_scan_never_crosses_a_row_or_its_padding():
    markers = TurnMarkers(openers=((1, 2),), stops=(3,))
    with pytest.raises(LabelError, match="no stop token"):
        markers.scan(torch.tensor([[1, 2, 5, 5], [3, 3, 3, 3]]))
    with pytest.raises(LabelError, match="no stop token"):
        markers.scan(torch.tensor([[1, 2, 5, 3]]), lengths=[3])
    straddles = torch.tensor([[5, 5, 5, 1], [2, 5, 5, 3]])
    assert not markers.scan(straddles).any()


def test_scan_refuses_a_marker_that_ran_into_its_answer():
    markers = TurnMarkers(openers=((1, 2, 10),), stops=(3,), unfinished=((1, 2),))
    with pytest.raises(LabelError, match="merged"):
        markers.scan(torch.tensor([1, 2, 11, 5, 3]))
