"""The order in which a mixture draws its sources.

Shapes: S sources.
"""

from __future__ import annotations

import attrs
import numpy as np

from vlmcollate.mixture.cycles import CYCLE, Cycle, bounds_of, draws_before, make_cycle


@attrs.frozen
class Schedule:
    """The source of every draw, without an end.

    Each cycle holds the share of each source, rounded so that the remainders add up over the
    cycles, in a shuffled order. Any draw is found without those before it.

    Attributes:
        weights: (S,) the weights, of which at least one is above 0.
        seed: The seed of the order.
        bounds: (S + 1,) the bounds of the sources in a cycle, in units.
    """

    weights: tuple[float, ...]
    seed: int
    bounds: tuple[int, ...] = attrs.field(init=False, eq=False, repr=False)

    @bounds.default
    def _bounds(self) -> tuple[int, ...]:
        return bounds_of(self.weights)

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
        while high - low > 1:  # the cycle `low` begins at or before the draw, `high` after it
            middle = (low + high) // 2
            if self._before(source, middle) <= times:
                low = middle
            else:
                high = middle
        places = np.flatnonzero(self._cycle(low).sources == source)
        return low * CYCLE + int(places[times - self._before(source, low)])

    def _before(self, source: int, cycles: int) -> int:
        """Returns how often a source is drawn in the first cycles."""
        return draws_before(self.bounds[source], self.bounds[source + 1], cycles)

    def _cycle(self, number: int) -> Cycle:
        return make_cycle(self.bounds, self.seed, number)
