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

    Attributes:
        pid: The process, which leads the session.
        output: What it writes to the stream that is read.
    """

    def __init__(self, path: Path, *arguments: str, stream: int = 1) -> None:
        """Starts the script in this folder; reads its file descriptor `stream`, 1 or 2."""
        here, there = _CONTEXT.Pipe(duplex=False)
        run = (str(path.absolute()), arguments, os.getcwd(), there, stream)
        self._process = _CONTEXT.Process(target=_run_script, args=run)
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


def _run_script(path: str, arguments: tuple[str, ...], folder: str, pipe: Any, stream: int) -> None:
    os.setsid()
    os.chdir(folder)
    os.dup2(pipe.fileno(), stream)
    pipe.close()
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # for the processes that it spawns
    sys.argv[:] = [path, *arguments]
    runpy.run_path(path, run_name="__main__")
