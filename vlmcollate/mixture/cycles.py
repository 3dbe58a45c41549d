"""Cycles of draws, in which each source has its share.

Shapes: S sources, C draws of a cycle.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import attrs
import numpy as np
import numpy.typing as npt

CYCLE = 100
"""The number of draws that are shuffled together, and in which each source has its share."""
_UNIT = 1 << 32
_GOLDEN = 0x9E3779B9  # the golden ratio of the unit, whose multiples are spread most evenly


@attrs.frozen(eq=False)
class Cycle:
    """The draws of a cycle.

    Attributes:
        sources: (C,) the number of the source of each draw.
        before: (C,) how often that was drawn before in the cycle.
    """

    sources: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]


@lru_cache(maxsize=64)
def bounds_of(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Returns (S + 1,) the bounds of sources in a cycle, in units."""
    exact = [Fraction(weight) for weight in weights]
    sums, whole = [Fraction(0), *accumulate(exact)], sum(exact)
    return tuple(round(part / whole * CYCLE * _UNIT) for part in sums)


@lru_cache(maxsize=1024)
def make_cycle(bounds: tuple[int, ...], seed: int, number: int) -> Cycle:
    """Returns a cycle.

    Args:
        bounds: (S + 1,) the bounds of the sources, from `bounds_of`.
        seed: The seed of all cycles.
        number: The number of the cycle.
    """
    offset = number * _GOLDEN % _UNIT
    edges = -((offset - np.array(bounds, np.int64)) // _UNIT)
    sizes = np.diff(edges)
    places = np.random.default_rng((seed, number)).permutation(CYCLE)
    sources, before = np.empty(CYCLE, np.int64), np.empty(CYCLE, np.int64)
    sources[places] = np.repeat(np.arange(len(sizes)), sizes)
    by_source = np.argsort(sources, kind="stable")
    before[by_source] = np.arange(CYCLE) - np.repeat(edges[:-1], sizes)
    return Cycle(sources, before)


@lru_cache(maxsize=4096)
def draws_before(low: int, high: int, cycles: int) -> int:
    """Sums the draws of a source between two bounds over cycles, whose edges `make_cycle` has."""
    below = _floor_sum(cycles, _UNIT, _GOLDEN, -low)
    return below - _floor_sum(cycles, _UNIT, _GOLDEN, -high)


def _floor_sum(count: int, divisor: int, factor: int, summand: int) -> int:
    """Returns the sum of `(factor * i + summand) // divisor` over all i below `count`.

    Source: Graham, Knuth and Patashnik, Concrete Mathematics, section 3.5.
    """
    total = 0
    while count:
        total += count * (count - 1) // 2 * (factor // divisor) + count * (summand // divisor)
        factor, summand = factor % divisor, summand % divisor
        last = factor * count + summand
        count, summand, divisor, factor = last // divisor, last % divisor, factor, divisor
    return total
