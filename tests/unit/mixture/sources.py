"""Sources of numbered rows."""

from __future__ import annotations

from vlmcollate.mixture import Mixture


class Numbers:
    """A map-style dataset of the numbers from one on."""

    def __init__(self, start: int, size: int) -> None:
        self.start, self.size = start, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return range(self.start, self.start + self.size)[index]


def numbers_mixture(**options):
    sources = {"charts": (Numbers(0, 7), 0.3), "chat": (Numbers(100, 23), 0.7)}
    return Mixture(sources, **{"seed": 5, **options})
