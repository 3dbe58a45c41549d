"""Comparing two calls in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Row = tuple[str, float, float, float]
"""What is compared, the seconds of the base and of ours, and the ratio that is wanted."""


def compare(
    base: Callable[[], Any],
    ours: Callable[[], Any],
    rounds: int,
    clock: Callable[[], float] = time.thread_time,
) -> tuple[float, float]:
    """The seconds of two calls that take turns, in the round with the median ratio.

    They are by default those of this thread, which do not count what a busy machine takes.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for call in (base, ours) * 2:
        call()
    for _ in range(rounds):
        for call, taken in zip((base, ours), times, strict=True):
            start = clock()
            call()
            taken.append(clock() - start)
    pairs = sorted(zip(*times, strict=True), key=lambda pair: pair[1] / pair[0])
    return pairs[len(pairs) // 2]
