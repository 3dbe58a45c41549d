"""One fork server for all workers of `pytest -n`, since its imports take ten seconds.

`multiprocessing` starts a server for each process that asks for one, and has no public name for the
address of another's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any


def start() -> str:
    """Starts the server of this process; returns its address, or "" if others need a key, too."""
    with _no_output():
        forkserver.ensure_running()
    server: Any = forkserver._forkserver
    return "" if hasattr(server, "_forkserver_authkey") else server._forkserver_address


@contextmanager
def _no_output() -> Iterator[None]:
    """Keeps what the forked processes write off the terminal, as pytest does for its workers."""
    kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        yield
    finally:
        for stream, file in enumerate(kept, 1):
            os.dup2(file, stream)
        for file in (*kept, nowhere):
            os.close(file)


def use(address: str) -> None:
    """Forks this process's children from the server of another process."""
    server: Any = _Running()
    server._forkserver_address = address
    server._forkserver_alive_fd = os.pipe()[1]
    forkserver.connect_to_new_process = server.connect_to_new_process


class _Running(forkserver.ForkServer):
    """A server that another process has started, and ends."""

    def ensure_running(self) -> None:
        """Does nothing."""
