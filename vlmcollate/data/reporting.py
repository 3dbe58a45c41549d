"""Reporting the progress of a run."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

from vlmcollate.data.manifest import ShardFacts

_SECONDS = 0.2
"""The minimum interval between two reports of progress."""


@attrs.frozen(kw_only=True)
class Progress:
    """The progress of `prepare_dataset`.

    Attributes:
        done: Rows of the source that this run or an earlier one read.
        total: All rows of the source, or `None` for a stream.
        dropped: Dropped samples in the shards that are complete.
        resumed: Rows in the shards of an earlier run, as far as they are verified.
        skipping: Whether the run is verifying the shards of an earlier run, whose rows it skips.
    """

    done: int
    total: int | None
    dropped: int
    resumed: int
    skipping: bool = False


@attrs.define(kw_only=True)
class Reporter:
    """Reports progress, at most every `_SECONDS` while rows are read or skipped."""

    on_progress: Callable[[Progress], None] | None
    total: int | None
    resumed: int = 0
    dropped: int = 0
    read: int = 0
    _last: float = 0.0

    def skip(self, facts: ShardFacts) -> None:
        """Takes a shard of an earlier run, which was verified."""
        dropped = sum(facts.dropped.values())
        self.resumed += facts.samples + dropped
        self.dropped += dropped
        self._report_soon(skipping=True)

    def update(self, read: int) -> None:
        """Takes the number of rows that this run has read."""
        if read != self.read:
            self.read = read
            self._report_soon()

    def report(self, *, skipping: bool = False) -> None:
        """Reports the progress now."""
        self._last = time.monotonic()
        if self.on_progress is not None:
            progress = Progress(
                done=self.resumed + self.read,
                total=self.total,
                dropped=self.dropped,
                resumed=self.resumed,
                skipping=skipping,
            )
            self.on_progress(progress)

    def _report_soon(self, *, skipping: bool = False) -> None:
        if time.monotonic() - self._last > _SECONDS:
            self.report(skipping=skipping)
