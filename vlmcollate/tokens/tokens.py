"""Tokens with their places in a text.

Shapes: L tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@attrs.frozen(eq=False)
class Tokens:
    """Token ids with the characters of each.

    Attributes:
        ids: (L,) int64.
        starts: (L,) int64, the first character of each token.
        ends: (L,) int64, the character after its last one.
    """

    ids: Ints
    starts: Ints
    ends: Ints

    @classmethod
    def join(cls, pieces: Iterable[Tokens]) -> Tokens:
        """Joins several sequences into one."""
        kept = list(pieces)
        return cls(
            ids=np.concatenate([piece.ids for piece in kept]),
            starts=np.concatenate([piece.starts for piece in kept]),
            ends=np.concatenate([piece.ends for piece in kept]),
        )

    def __getitem__(self, part: slice) -> Tokens:
        return Tokens(self.ids[part], self.starts[part], self.ends[part])


def id_table(ids: Collection[int]) -> Flags:
    """Returns whether each id is among some, at its number + 1.

    The first and the last entry stand for all numbers that are smaller or larger.

    Example:
        >>> id_table([1]).take([-5 + 1, 0 + 1, 1 + 1, 9 + 1], mode="clip").tolist()
        [False, False, True, False]
    """
    table = np.zeros(max(ids, default=-1) + 3, dtype=bool)
    table[[i + 1 for i in ids]] = True
    return table
