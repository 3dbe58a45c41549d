"""The progress of `vlmcollate prepare`: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

if TYPE_CHECKING:
    from vlmcollate.data import Progress

_ENCODING = "samples"
_SKIPPING = "skipping the rows of complete shards"
_SECONDS_PER_LINE = 10.0


class ProgressBar:
    """A status until the first progress arrives, then a bar; lines if there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = console.status("Reading the source ...")
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}{task.fields[dropped]} dropped"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=None, rate="", dropped=0)
        self._started: float | None = None
        self._line_at = 0.0

    def start(self) -> None:
        """Shows the status."""
        if self._console.is_terminal:
            self._status.start()

    def stop(self) -> None:
        """Leaves the last state on a terminal."""
        self._status.stop()
        if self._console.is_terminal:
            self._bar.stop()

    def abandon(self, message: str) -> None:
        """Prints a message as the process ends, from another thread than the one that works."""
        self.stop()
        Console(stderr=True).print(Text(message), soft_wrap=True)

    def show(self, progress: Progress) -> None:
        """Shows the progress."""
        if not self._console.is_terminal:
            self._print_line(progress)
            return
        self._bar.update(
            self._task,
            description=_SKIPPING if progress.skipping else _ENCODING,
            total=progress.total,
            completed=progress.done,
            rate=self._rate(progress),
            dropped=progress.dropped,
        )
        self._status.stop()
        self._bar.start()

    def _rate(self, progress: Progress) -> str:
        """The rows that this run encodes per second; those that it skips do not count."""
        here = progress.done - progress.resumed
        if progress.skipping or not here:
            self._started = None if progress.skipping else time.monotonic()
            return "" if progress.skipping else "starting, "
        elapsed = time.monotonic() - (self._started or time.monotonic())
        return f"{here / elapsed:.0f} samples/s, " if elapsed else ""

    def _print_line(self, progress: Progress) -> None:
        is_last = not progress.skipping and progress.done == progress.total
        if not is_last and time.monotonic() - self._line_at < _SECONDS_PER_LINE:
            return
        self._line_at = time.monotonic()
        name = _SKIPPING if progress.skipping else _ENCODING
        total = "" if progress.total is None else f"/{progress.total}"
        line = f"{name} {progress.done}{total}, {progress.dropped} dropped"
        self._console.print(Text(line), soft_wrap=True)


@contextmanager
def progress_bar(console: Console) -> Iterator[ProgressBar]:
    """Shows a bar for as long as the context lasts."""
    bar = ProgressBar(console)
    bar.start()
    try:
        yield bar
    finally:
        bar.stop()
