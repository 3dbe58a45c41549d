"""The order in which a mixture draws its sources.

Shapes: S sources, C draws of a cycle.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

import attrs
import numpy as np
import numpy.typing as npt

CYCLE = 1000
"""The number of draws that are shuffled together, and in which each source has its share."""
_UNIT = 1 << 32
_GOLDEN = 0x9E3779B9  # the golden ratio of the unit, whose multiples are spread most evenly


@attrs.frozen
class Schedule:
    """The source of every draw, without an end.

    Each cycle holds the share of each source, rounded so that the remainders add up over the
    cycles, in a shuffled order. Any draw is found without those before it.

    Attributes:
        weights: (S,) the weights, of which at least one is above 0.
        seed: The seed of the order.
    """

    weights: tuple[float, ...]
    seed: int

    @property
    def bounds(self) -> tuple[int, ...]:
        """(S + 1,) the bounds of the sources in a cycle, in units."""
        return _bounds(self.weights)

    def source_at(self, draw: int) -> tuple[int, int]:
        """Returns the number of a draw's source, and how often that was drawn before."""
        number, place = divmod(draw, CYCLE)
        cycle = self._cycle(number)
        source = int(cycle.sources[place])
        return source, self._before(source, number) + int(cycle.before[place])

    def count(self, source: int, draws: int) -> int:
        """Returns how often a source is among the first draws."""
        number, place = divmod(draws, CYCLE)
        found = self._before(source, number)
        if place:
            found += int(np.count_nonzero(self._cycle(number).sources[:place] == source))
        return found

    def find(self, source: int, times: int) -> int:
        """Returns the draw before which a source was drawn that often, and which draws it."""
        low, high = 0, 1
        while self._before(source, high) <= times:
            high *= 2
        while high - low > 1:  # the cycle `low` begins at or before the draw, `high` behind it
            middle = (low + high) // 2
            if self._before(source, middle) <= times:
                low = middle
            else:
                high = middle
        places = np.flatnonzero(self._cycle(low).sources == source)
        return low * CYCLE + int(places[times - self._before(source, low)])

    def _before(self, source: int, cycles: int) -> int:
        """Returns how often a source is drawn in the first cycles."""
        return _draws_before(self.bounds[source], self.bounds[source + 1], cycles)

    def _cycle(self, number: int) -> _Cycle:
        return _make_cycle(self.bounds, self.seed, number)


@attrs.frozen(eq=False)
class _Cycle:
    """The draws of a cycle.

    Attributes:
        sources: (C,) the number of the source of each draw.
        before: (C,) how often that was drawn before in the cycle.
    """

    sources: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]


@lru_cache(maxsize=64)
def _bounds(weights: tuple[float, ...]) -> tuple[int, ...]:
    exact = [Fraction(weight) for weight in weights]
    sums, whole = [Fraction(0), *accumulate(exact)], sum(exact)
    return tuple(round(part / whole * CYCLE * _UNIT) for part in sums)


@lru_cache(maxsize=1024)
def _make_cycle(bounds: tuple[int, ...], seed: int, number: int) -> _Cycle:
    offset = number * _GOLDEN % _UNIT
    edges = [-((offset - bound) // _UNIT) for bound in bounds]
    sizes = np.diff(edges)
    places = np.random.default_rng((seed, number)).permutation(CYCLE)
    sources, before = np.empty(CYCLE, np.int64), np.empty(CYCLE, np.int64)
    for source, (start, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        own = np.sort(places[start:end])
        sources[own], before[own] = source, np.arange(sizes[source])
    return _Cycle(sources, before)


@lru_cache(maxsize=4096)
def _draws_before(low: int, high: int, cycles: int) -> int:
    """Sums the draws of a source between two bounds over cycles, whose edges `_make_cycle` has."""
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
