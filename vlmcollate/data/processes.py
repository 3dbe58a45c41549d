"""A pool of processes that encode, none of which outlives the run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from vlmcollate.data.encoder import Encoder
from vlmcollate.data.interrupting import uninterrupted
from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sources import Piece
from vlmcollate.errors import ConfigError

_SECONDS = 0.2
"""How often the rows that were read are told."""


def write_shards(
    encoder: Encoder,
    tasks: Sequence[tuple[Piece, Path]],
    num_proc: int,
    reached: Callable[[int], None],
) -> Iterator[ShardFacts]:
    """Writes shards in several processes, which are gone when it ends, however it does.

    After Ctrl-C or an error they are killed, and what they had begun is not waited for: a shard
    appears only when it is complete.

    Args:
        encoder: Encodes a piece.
        tasks: The pieces, and where the shard of each goes.
        num_proc: The most processes.
        reached: Called with the number of rows that were read so far.

    Yields:
        What each shard says of itself, as soon as it is there.

    Raises:
        ConfigError: A process died.
    """
    data, left = pickle.dumps(encoder), iter(tasks)
    # a forked process would inherit the locks of torch's and the tokenizer's threads
    context = multiprocessing.get_context("spawn")
    read = context.RawArray("q", num_proc)
    processes: dict[Any, BaseProcess] = {}
    try:
        with uninterrupted(), _unheard():
            for place in range(min(num_proc, len(tasks))):
                here, there = context.Pipe()
                process: BaseProcess = context.Process(target=_serve, args=(there, read, place))
                process.start()
                there.close()
                processes[here] = process
        for pipe, process in processes.items():  # now, since it waits for their imports
            with _death_of(process):
                pipe.send_bytes(data)
                pipe.send(next(left))
        del data
        working = dict(processes)
        while working:
            ready: list[Any] = connection.wait(list(working), _SECONDS)
            reached(sum(read))
            for pipe in ready:
                with _death_of(working[pipe]):
                    facts, failure = pipe.recv()
                if failure is not None:
                    error, told = failure
                    raise error from RuntimeError(told)
                task = next(left, None)
                with _death_of(working[pipe]):
                    pipe.send(task)
                if task is None:
                    del working[pipe]
                yield facts
        for process in processes.values():
            process.join()
    finally:
        with uninterrupted():
            for process in processes.values():
                process.kill()
            for process in processes.values():
                process.join()


@contextmanager
def _unheard() -> Iterator[None]:
    """Keeps Ctrl-C from the processes that are started meanwhile, which import for seconds."""
    if not hasattr(signal, "pthread_sigmask"):  # as on Windows
        yield
        return
    resource_tracker.ensure_running()  # else the first process starts it, which ends the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _death_of(process: BaseProcess) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        process.join(1)
        raise ConfigError(
            f"a process that encodes died with exit code {process.exitcode}; lower num_proc if "
            "memory ran out, call under `if __name__ == '__main__':` if it is a script, and run "
            "again, which keeps what is complete"
        ) from error


def _serve(pipe: Any, read: Any, place: int) -> None:
    """Does tasks until one is `None`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)

    def count() -> None:
        read[place] += 1

    try:
        encoder = pickle.loads(pipe.recv_bytes())  # noqa: S301  # the parent pickled it
        for piece, file in iter(pipe.recv, None):
            pipe.send((encoder.write(piece, file, count), None))
    except Exception as error:  # noqa: BLE001  # whatever it is, the parent raises it
        with suppress(OSError):  # it is gone
            pipe.send((None, _told(error)))


def _told(error: Exception) -> tuple[Exception, str]:
    """An error as it can be sent, and where it came from."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # as the parent will
    except Exception:  # noqa: BLE001  # its author's affair
        error = RuntimeError(traceback.format_exception_only(error)[-1].strip())
    return error, text


def _die_with_parent() -> None:
    """Ends this process as soon as its parent is gone, who else would have ended it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
