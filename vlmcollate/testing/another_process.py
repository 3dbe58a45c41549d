"""A collator in another process, as a spawned DataLoader worker has it, under another hash seed."""

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
_MOST_LOGGED = 2000

Outcome = Literal["given", "in main", "refused", "raised"]


@attrs.frozen(kw_only=True)
class Answer:
    """What came of a request.

    Attributes:
        outcome: `"given"`, or why not: a class of the collator is defined in `__main__`, it cannot
            be unpickled, or it raises.
        problem: What was raised.
        tensors: Those of the batch.
    """

    outcome: Outcome
    problem: str = ""
    tensors: Mapping[str, Tensor] = attrs.field(factory=dict)


class AnotherProcess:
    """A Python that is started when it is first asked, since importing torch takes seconds.

    It ends with `close`, or when this process does.
    """

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def load(self, collator: bytes) -> Answer:
        """Unpickles a collator there, in the place of the one before."""
        path = [os.path.abspath(entry) for entry in sys.path]
        return self._ask(("load", path, torch.get_num_threads(), collator))

    def collate(self, examples: Sequence[object]) -> Answer:
        """Calls the collator there."""
        return self._ask(("collate", pickle.dumps(examples)))

    def close(self) -> None:
        """Ends the process, whatever it does."""
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
                pass  # part of a request that nobody reads

    def _ask(self, request: tuple[Any, ...]) -> Answer:
        running = self._running or self._started()
        assert running.stdin is not None  # noqa: S101  # it is a pipe
        assert running.stdout is not None  # noqa: S101  # likewise
        try:
            pickle.dump(request, running.stdin)
            running.stdin.flush()
            answer: Answer = pickle.load(running.stdout)  # noqa: S301  # of our own process
        except (EOFError, BrokenPipeError):
            problem = f"the process ended: {self._logged()}"
            self.close()
            return Answer(outcome="raised", problem=problem)
        except BaseException:
            self.close()  # its answer would be taken for that of the next request
            raise
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
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

    def _logged(self) -> str:
        """The end of what it wrote."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-_MOST_LOGGED:].strip()


class _Shared(threading.local):
    """The process of the block that this thread is in."""

    process: AnotherProcess | None = None


_SHARED = _Shared()


@contextmanager
def another_process() -> Iterator[AnotherProcess]:
    """A process for the block; blocks within share it, and the outermost ends it."""
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
    """The tensors of a batch by their names, those in mappings included."""
    found: dict[str, Tensor] = {}
    for key, value in batch.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            found.update(tensors_of(value, f"{prefix}{key}."))
    return found


class _InMainError(Exception):
    """A class is defined in `__main__`, which is another module there."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """See `pickle.Unpickler`."""
        if module_name == "__main__":
            raise _InMainError(global_name)
        return super().find_class(module_name, global_name)


def serve() -> None:
    """Answers requests, in the process that was started, until the pipe is closed."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a collator prints is no answer
    collator: Any = None
    while True:
        try:
            kind, *given = pickle.load(requests)  # noqa: S301  # of the process that started this
        except EOFError:
            return
        if kind == "load":
            answer, collator = _loaded(*given)
        else:
            answer = _collated(collator, *given)
        pickle.dump(answer, answers)
        answers.flush()


def _loaded(path: list[str], threads: int, collator: bytes) -> tuple[Answer, Any]:
    sys.path[:] = path
    torch.set_num_threads(threads)  # on which the last digit of a resized picture may depend
    importlib.invalidate_caches()
    try:
        return Answer(outcome="given"), _Unpickler(io.BytesIO(collator)).load()
    except _InMainError as error:
        return Answer(outcome="in main", problem=str(error)), None
    except Exception as error:  # noqa: BLE001  # told to whoever asked
        return Answer(outcome="refused", problem=f"{type(error).__name__}: {error}"), None


def _collated(collator: Any, examples: bytes) -> Answer:
    try:
        batch = collator(pickle.loads(examples))  # noqa: S301  # of the process that started this
    except Exception as error:  # noqa: BLE001  # told to whoever asked
        return Answer(outcome="raised", problem=f"{type(error).__name__}: {error}")
    return Answer(outcome="given", tensors=tensors_of(batch))
