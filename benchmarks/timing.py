"""Comparing two calls in one process."""

from __future__ import annotations

import statistics
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
    """The median seconds of two calls that take turns, by default those of this thread.

    The time of a thread does not count what a busy machine takes.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for call in (base, ours) * 2:
        call()
    for _ in range(rounds):
        for call, taken in zip((base, ours), times, strict=True):
            start = clock()
            call()
            taken.append(clock() - start)
    return statistics.median(times[0]), statistics.median(times[1])
