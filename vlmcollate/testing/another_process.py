"""Calls a collator in another process under another hash seed, like a spawned DataLoader worker."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Literal

import attrs
import torch
from torch import Tensor

_START = "from vlmcollate.testing.another_process import serve; serve()"
_LOG_LIMIT = 2000
"""The maximum number of characters of the log in a message."""

Outcome = Literal["returned", "in main", "not unpickled", "raised"]


@attrs.frozen(kw_only=True)
class Reply:
    """The reply to a request.

    Attributes:
        outcome: `"returned"` if the request succeeded; `"in main"` if a class of the collator is
            defined in `__main__`, `"not unpickled"` if unpickling the collator raised, and
            `"raised"` if calling it raised.
        problem: The name of the class in `__main__`, or the error.
        tensors: The tensors of the batch by name.
    """

    outcome: Outcome
    problem: str = ""
    tensors: Mapping[str, Tensor] = attrs.field(factory=dict)


class AnotherProcess:
    """A Python process that starts with the first request.

    It does not start earlier, because importing torch takes seconds. It ends when `close` is called
    or the current process ends.
    """

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def load(self, collator: bytes) -> Reply:
        """Unpickles a collator in the process, replacing the previous one."""
        path = [os.path.abspath(entry) for entry in sys.path]
        return self._request(("load", path, torch.get_num_threads(), collator))

    def collate(self, examples: Sequence[object]) -> Reply:
        """Calls the loaded collator in the process."""
        return self._request(("collate", pickle.dumps(examples)))

    def close(self) -> None:
        """Kills the process and closes its pipes."""
        running, self._running = self._running, None
        if running is None:
            return
        running.kill()
        running.wait()
        for stream in (running.stdin, running.stdout, self._log):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                pass  # the rest of a request that the process did not read

    def _request(self, request: tuple[Any, ...]) -> Reply:
        """Sends a request and waits for the reply."""
        running = self._running or self._start()
        assert running.stdin is not None  # noqa: S101  # it is a pipe
        assert running.stdout is not None  # noqa: S101  # likewise
        try:
            pickle.dump(request, running.stdin)
            running.stdin.flush()
            reply: Reply = pickle.load(running.stdout)  # noqa: S301  # written by our own process
        except (EOFError, BrokenPipeError):
            problem = f"the process ended: {self._log_tail()}"
            self.close()
            return Reply(outcome="raised", problem=problem)
        except BaseException:
            # also on KeyboardInterrupt and on a request that cannot be pickled: the next request
            # would read the reply to this one, or continue a request that was sent in part
            self.close()
            raise
        return reply

    def _start(self) -> subprocess.Popen[bytes]:
        seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._running = subprocess.Popen(  # noqa: S603  # this Python
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        )
        return self._running

    def _log_tail(self) -> str:
        """The end of what the process wrote to its standard error."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-_LOG_LIMIT:].strip()


class _Shared(threading.local):
    """The process of the current thread's `another_process` block."""

    process: AnotherProcess | None = None


_SHARED = _Shared()


@contextmanager
def another_process() -> Iterator[AnotherProcess]:
    """Yields a process that nested blocks share; the outermost one ends it."""
    if _SHARED.process is not None:
        yield _SHARED.process
        return
    _SHARED.process = process = AnotherProcess()
    try:
        yield process
    finally:
        _SHARED.process = None
        process.close()


def tensors_of(batch: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Returns the tensors of a batch by name, nested mappings included."""
    found: dict[str, Tensor] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            found.update(tensors_of(value, f"{prefix}{key}."))
    return found


class _InMainError(Exception):
    """A class is defined in `__main__`, which differs in the other process."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Refuses classes of `__main__`; see `pickle.Unpickler`."""
        if module_name == "__main__":
            raise _InMainError(global_name)
        return super().find_class(module_name, global_name)


def serve() -> None:
    """Replies to requests in the started process until the pipe is closed."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that what a collator prints is not part of a reply
    collator: Any = None
    while True:
        try:
            kind, *given = pickle.load(requests)  # noqa: S301  # written by the process that started this
        except EOFError:
            return
        if kind == "load":
            reply, collator = _load(*given)
        else:
            reply = _collate(collator, *given)
        pickle.dump(reply, replies)
        replies.flush()


def _load(path: list[str], threads: int, collator: bytes) -> tuple[Reply, Any]:
    sys.path[:] = path
    torch.set_num_threads(threads)  # the last digit of a resized image may depend on it
    importlib.invalidate_caches()
    try:
        return Reply(outcome="returned"), _Unpickler(io.BytesIO(collator)).load()
    except _InMainError as error:
        return Reply(outcome="in main", problem=str(error)), None
    except Exception as error:  # noqa: BLE001  # unpickling runs a user's code; the law reports it
        return Reply(outcome="not unpickled", problem=f"{type(error).__name__}: {error}"), None


def _collate(collator: Any, examples: bytes) -> Reply:
    try:
        batch = collator(pickle.loads(examples))  # noqa: S301  # of the process that started this
    except Exception as error:  # noqa: BLE001  # whatever a collator raises; the law reports it
        return Reply(outcome="raised", problem=f"{type(error).__name__}: {error}")
    return Reply(outcome="returned", tensors=tensors_of(batch))
