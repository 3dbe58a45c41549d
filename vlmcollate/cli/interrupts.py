"""Ending a command within two seconds after Ctrl-C, whatever it is doing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS = 1.0
"""The time in which the command may end by itself."""
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, by a convention of shells."""


@contextmanager
def end_soon_after_interrupt(report: Callable[[], None]) -> Iterator[None]:
    """Ends the process if Ctrl-C has not ended the context in time.

    Python raises `KeyboardInterrupt` only between its own instructions, and the decoding of a long
    video or the encoding of a long text is one instruction. Ctrl-C raises it once: a second one
    would interrupt what ends the command.

    Args:
        report: Called in a thread before the process ends.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or os.name != "posix" or not callable(handler):  # Ctrl-C raises nothing here
        yield
        return
    interrupts: list[int] = []

    def interrupt(number: int, _: object) -> None:
        interrupts.append(number)
        if len(interrupts) == 1:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    here, there = os.pipe()
    os.set_blocking(there, False)
    before = signal.set_wakeup_fd(there, warn_on_full_buffer=False)
    has_ended = threading.Event()
    threading.Thread(target=_watch, args=(here, has_ended, report), daemon=True).start()
    try:
        yield
    finally:
        has_ended.set()
        signal.set_wakeup_fd(before)
        os.close(there)
        if not interrupts:
            signal.signal(signal.SIGINT, handler)


def _watch(signals: int, has_ended: threading.Event, report: Callable[[], None]) -> None:
    """Waits for Ctrl-C, and then for the end of the context; closes the pipe after it."""
    with os.fdopen(signals, "rb", buffering=0) as pipe:
        while number := pipe.read(1):  # empty when the other end is closed
            if number[0] == signal.SIGINT and not has_ended.wait(_SECONDS):
                report()
                os._exit(INTERRUPTED)
