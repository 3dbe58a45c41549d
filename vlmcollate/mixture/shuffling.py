"""Shuffled orders of which any place is computed alone, without a table of the others."""

from __future__ import annotations

import hashlib
from functools import lru_cache

_ROUNDS = 6
_WORD = (1 << 64) - 1


@lru_cache(maxsize=1024)
def shuffle_key(seed: int, *parts: object) -> int:
    """Returns a number of 64 bits that a seed and names determine, the same in every process."""
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def shuffled_index(place: int, size: int, key: int) -> int:
    """Returns the index at a place of a shuffled order.

    A Feistel network permutes the numbers of an even number of bits, and a result beyond the size
    is permuted again, so that every index stands at one place.

    Args:
        place: The place, from 0 to `size - 1`.
        size: The number of indices.
        key: The order, from `shuffle_key`.

    Example:
        >>> sorted(shuffled_index(place, 5, key=7) for place in range(5))
        [0, 1, 2, 3, 4]
    """
    half = ((size - 1).bit_length() + 1) // 2 or 1
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mix(right + key + (number << 58)) & mask)
        place = left << half | right
        if place < size:
            return place


def _mix(value: int) -> int:
    """Spreads every bit of a number over 64 bits, as SplitMix64 does."""
    value = (value * 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
