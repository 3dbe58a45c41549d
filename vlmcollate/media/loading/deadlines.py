"""Deadlines of requests over the network."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import attrs

T = TypeVar("T")


@attrs.frozen
class Deadline:
    """The moment until which a request may take.

    Attributes:
        timeout: The seconds from the start of the request to its end.
        moment: The end, on the clock of `time.monotonic`.
    """

    timeout: float
    moment: float

    @classmethod
    def after(cls, timeout: float) -> Deadline:
        """Makes a deadline that many seconds from now."""
        return cls(timeout, time.monotonic() + timeout)

    @property
    def has_passed(self) -> bool:
        """Whether the moment has passed."""
        return time.monotonic() >= self.moment

    @property
    def problem(self) -> str:
        """The reason for an error after the deadline."""
        return f"longer than timeout={self.timeout} s"

    def seconds_left(self) -> float:
        """Returns the seconds until the moment.

        Raises:
            TimeoutError: If there are none.
        """
        left = self.moment - time.monotonic()
        if left <= 0:
            raise TimeoutError(self.problem)
        return left

    def run(self, call: Callable[[], T]) -> T:
        """Calls a function in another thread, without waiting for it past the moment.

        Raises:
            TimeoutError: If it takes longer.
        """
        found: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def put() -> None:
            try:
                found.put((call(), None))
            except BaseException as error:  # noqa: BLE001  # raised below
                found.put((None, error))

        threading.Thread(target=put, daemon=True).start()
        try:
            value, error = found.get(timeout=self.seconds_left())
        except queue.Empty:
            raise TimeoutError(self.problem) from None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # of the call, which raised nothing

    @contextlib.contextmanager
    def closes(self, connection: socket.socket) -> Iterator[None]:
        """Shuts a connection down at the moment, even if the server keeps sending bytes slowly."""
        left = max(self.moment - time.monotonic(), 0)
        timer = threading.Timer(left, _shut_down, [connection])
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed before, here or on the other side
        connection.shutdown(socket.SHUT_RDWR)
