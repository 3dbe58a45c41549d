"""Rows that a dataset raises instead of returning them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
from collections.abc import Iterator
from typing import Any

from vlmcollate.data.content_hash import without_addresses
from vlmcollate.errors import SampleError, SourceError
from vlmcollate.mixture.reading import read_row, shown_error

_MACHINE = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "EIO", "ESTALE", "ENOTCONN"),
        *("EACCES", "EPERM", "EAGAIN", "EINTR", "ETIMEDOUT"),
        *("ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ENETDOWN", "ENETRESET", "ENETUNREACH"),
        *("EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
)
"""Errors that every other row would raise, too, or that may pass."""
_OUTAGES = (
    *(MemoryError, ConnectionError, PermissionError, BlockingIOError, InterruptedError),
    *(TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError),  # one from Python 3.11
    *(socket.gaierror, socket.herror),
)


def row_or_error(dataset: Any, index: int) -> Any:
    """Reads a row of a map-style dataset.

    Returns:
        The row, or a `SampleError` if the dataset raised an error of this row, which is its cause.

    Raises:
        SourceError: The disk is full or fails, the network or a server does not answer, access is
            denied, too many files are open, or a package is missing.
    """

    def read() -> Any:
        try:
            return dataset[index]
        except SampleError as error:
            return error

    try:
        return read_row("dataset", index, read)
    except SourceError as error:
        cause = error.__cause__
        if isinstance(cause, ImportError) or any(map(_is_of_machine, _chain(cause))):
            raise
        return _unreadable(cause)


def _unreadable(cause: BaseException | None) -> SampleError:
    # an address is another one in each run, and the script has another name in other processes
    shown = without_addresses(shown_error(cause)).replace("__mp_main__", "__main__")
    error = SampleError(f"the row cannot be read: {shown}; correct the dataset, or remove the row")
    error.__cause__ = cause
    return error


def _is_of_machine(error: BaseException) -> bool:
    if isinstance(error, _OUTAGES):
        return True
    return isinstance(error, OSError) and error.errno in _MACHINE


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
