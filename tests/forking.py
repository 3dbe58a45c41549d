"""Processes that start fast: they are forked from a server that has imported torch already."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import attrs
import torch

from vlmcollate.testing.another_process import AnotherProcess, serve

_CONTEXT = multiprocessing.get_context("forkserver")


def run_in_fresh_package(code: str) -> None:
    """Runs code in another process that has not imported vlmcollate.

    Raises:
        AssertionError: The code raises; the message is its traceback.
    """
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run_code, args=(code, there))
    process.start()
    there.close()
    with here:
        problem = here.recv()
    process.join()
    assert not problem, problem


class Script:
    """A script that runs as `python script.py` does, in a session of its own.

    It has the environment of the test. The processes that it starts are forked, and import the
    script as spawned ones do; `spawn=True` spawns them, which takes seconds.

    Attributes:
        pid: The process, which leads the session.
        output: What it writes to the stream that is read.
    """

    def __init__(self, path: Path, *arguments: str, stream: int = 1, spawn: bool = False) -> None:
        """Starts the script in this folder; reads its file descriptor `stream`, 1 or 2."""
        here, there = _CONTEXT.Pipe(duplex=False)
        run = _Run(
            path=str(path.absolute()),
            arguments=arguments,
            folder=os.getcwd(),
            environment=dict(os.environ),
            stream=stream,
            spawn=spawn,
        )
        self._process = _CONTEXT.Process(target=run, args=(there,))
        self._process.start()
        there.close()
        self.pid = self._process.pid or 0
        self.output: TextIO = os.fdopen(os.dup(here.fileno()))
        here.close()

    def wait(self) -> int:
        """Returns the exit code, or the negative number of the signal that ended it."""
        self._process.join()
        return self._process.exitcode or 0

    def end(self) -> None:
        """Kills it if it is running."""
        self._process.kill()
        self._process.join()
        self.output.close()


class ForkedProcess(AnotherProcess):
    """The process for pickled copies, forked; the fork server has a hash seed of its own."""

    # private: only how the process starts differs, and users have no reason to change it
    def _start(self) -> Any:
        requests, to_it = _CONTEXT.Pipe(duplex=False)
        from_it, replies = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_serve, args=(requests, replies), daemon=True)
        process.start()
        for pipe in (requests, replies):
            pipe.close()
        streams = [
            os.fdopen(os.dup(to_it.fileno()), "wb"),
            os.fdopen(os.dup(from_it.fileno()), "rb"),
        ]
        for pipe in (to_it, from_it):
            pipe.close()
        running: Any = SimpleNamespace(
            stdin=streams[0], stdout=streams[1], kill=process.kill, wait=process.join
        )
        self._running = running
        return running


def _serve(requests: Any, replies: Any) -> None:
    os.dup2(requests.fileno(), 0)
    os.dup2(replies.fileno(), 1)
    for pipe in (requests, replies):
        pipe.close()
    sys.stdin = os.fdopen(0)
    serve()


def _run_code(code: str, pipe: Any) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "vlmcollate"]:
        del sys.modules[name]
    try:
        exec(code, {"__name__": "__main__"})  # noqa: S102  # of a test
    except BaseException:
        pipe.send(traceback.format_exc())
        raise
    pipe.send("")


@attrs.frozen(kw_only=True)
class _Run:
    """What the process of a `Script` runs."""

    path: str
    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    stream: int
    spawn: bool

    def __call__(self, pipe: Any) -> None:
        os.setsid()
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        os.dup2(pipe.fileno(), self.stream)
        pipe.close()
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the processes that it spawns
        sys.argv[:] = [self.path, *self.arguments]
        if not self.spawn:
            torch.set_num_threads(1)  # a process that is forked has none of the threads
            multiprocessing.get_context = _importing_context  # type: ignore[assignment]
        runpy.run_path(self.path, run_name="__main__")


class _ImportingProcess(multiprocessing.context.ForkProcess):
    """A forked process that imports the script first, with what a spawned one is known by."""

    def run(self) -> None:
        self._inheriting = True
        runpy.run_path(sys.argv[0], run_name="__mp_main__")
        del self._inheriting
        super().run()


class _ImportingContext(multiprocessing.context.ForkContext):
    Process = _ImportingProcess


def _importing_context(_: str | None = None) -> Any:
    return _ImportingContext()
