"""Aligns the tokens of a finished sample with those of its prompt.

Shapes: L a sample's tokens, P its prompt's.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from itertools import groupby

import numpy as np

from vlmcollate.tokens.vocabulary import Ints


def aligned(ids: Ints, prompt_ids: Ints) -> Ints:
    """Finds each token of a sample in the prompt that it was made from.

    Args:
        ids: (L,) int64, the sample's: the prompt's, possibly truncated or with inserted tokens.
        prompt_ids: (P,) int64.

    Returns:
        (L,) int64, the index in the prompt, or -1 for an inserted token.

    Example:
        >>> aligned(np.array([1, 9, 2]), np.array([1, 2, 3])).tolist()
        [0, -1, 1]
    """
    places = np.full(len(ids), -1, np.int64)
    shared = min(len(ids), len(prompt_ids))
    same = ids[:shared] == prompt_ids[:shared]
    common = shared if same.all() else int(same.argmin())
    places[:common] = np.arange(common)
    rest, other = _runs(ids[common:]), _runs(prompt_ids[common:])
    matcher = SequenceMatcher(None, [r[:2] for r in rest], [r[:2] for r in other], autojunk=False)
    for block in matcher.get_matching_blocks():
        for here, there in zip(
            rest[block.a : block.a + block.size], other[block.b : block.b + block.size], strict=True
        ):
            _, length, start = here
            places[common + start : common + start + length] = np.arange(length) + there[2] + common
    return places


def _runs(ids: Ints) -> list[tuple[int, int, int]]:
    """Returns the runs of one id: the id, the length and the start."""
    runs, start = [], 0
    for value, run in groupby(ids.tolist()):
        length = sum(1 for _ in run)
        runs.append((value, length, start))
        start += length
    return runs
