"""A pool of processes that encode, none of which outlives the run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection, resource_tracker, spawn
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from vlmcollate.data.encoder import PieceEncoder
from vlmcollate.data.interrupting import defer_interrupts
from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sending import pickle_encoder, pickle_task, receive
from vlmcollate.data.sources import Piece
from vlmcollate.errors import ConfigError

_SECONDS = 0.2
"""The interval at which the number of rows read is reported."""
_START_METHOD = "spawn"
"""A forked process would inherit the locks of torch's and the tokenizer's threads."""
_NAME = "vlmcollate-encoder"
_NO_MORE = pickle.dumps(None)
_UNGUARDED = 78
"""The exit code of a process that ran the script down to its call of `prepare_dataset`."""

Task = tuple[Piece, Path]


def write_shards(
    encoder: PieceEncoder,
    tasks: Iterable[Task],
    num_proc: int,
    on_read: Callable[[int], None],
) -> Iterator[ShardFacts]:
    """Writes shards in several processes, all of which end with this call.

    After Ctrl-C or an error the processes are killed without waiting for their shards: a shard
    appears only when it is complete.

    Args:
        encoder: Encodes a piece.
        tasks: The pieces, each with the shard to write.
        num_proc: The number of processes, at most that of the tasks.
        on_read: Called with the number of rows read so far.

    Yields:
        The facts of each shard, as soon as it is complete.

    Raises:
        ConfigError: A process died, or something cannot be sent to one.
    """
    data, left = pickle_encoder(encoder), iter(tasks)
    context = multiprocessing.get_context(_START_METHOD)
    read = context.RawArray("q", num_proc)
    processes: dict[Any, BaseProcess] = {}
    try:
        _start_processes(context, processes, num_proc, read)
        _send_encoder(processes, data, left)
        del data  # it may hold a whole dataset
        yield from _collect(processes, left, lambda: on_read(sum(read)))
        for process in processes.values():
            process.join()
    finally:
        with defer_interrupts():
            for process in processes.values():
                process.kill()
            for process in processes.values():
                process.join()


def exit_if_unguarded() -> None:
    """Ends a process that a script without a guard has started, before its first error.

    A process that is spawned imports the script, so it reaches the call that started it.
    """
    process = multiprocessing.current_process()
    if process.name == _NAME and getattr(process, "_inheriting", False):
        os._exit(_UNGUARDED)


def check_program_is_importable() -> None:
    """Checks that a process that is spawned can import the running program, as it will.

    A notebook, an interactive session and `python -c` have no file, and nothing is imported.

    Raises:
        ConfigError: The program was read from standard input or a pipe, or its file is gone.
    """
    program = spawn.get_preparation_data(_NAME).get("init_main_from_path")
    if program is None or Path(program).is_file():
        return
    found = "standard input" if Path(program).name == "<stdin>" else f"'{program}'"
    raise ConfigError(
        f"the encoding processes cannot import the running program: found one read from {found}, "
        "expected a regular file; save the program as a file that calls prepare_dataset below "
        '`if __name__ == "__main__":`, or set num_proc=1'
    )


def _start_processes(
    context: Any, processes: dict[Any, BaseProcess], number: int, read: Any
) -> None:
    """Starts processes, and adds each under its pipe."""
    with defer_interrupts(), _block_interrupts():
        for place in range(number):
            here, there = context.Pipe()
            process: BaseProcess = context.Process(
                target=_serve, args=(there, read, place), name=_NAME
            )
            process.start()
            there.close()
            processes[here] = process


def _send_encoder(
    processes: Mapping[Any, BaseProcess], encoder: bytes, tasks: Iterator[Task]
) -> None:
    """Sends the encoder and a first task to each process; waits for their imports."""
    for pipe, process in processes.items():
        task = pickle_task(*next(tasks))
        with _report_death(process):
            pipe.send_bytes(encoder)
            pipe.send_bytes(task)


def _collect(
    processes: Mapping[Any, BaseProcess], tasks: Iterator[Task], on_wait: Callable[[], None]
) -> Iterator[ShardFacts]:
    """Yields the facts of each shard, and sends the next task to its process."""
    working = dict(processes)
    while working:
        ready: list[Any] = connection.wait(list(working), _SECONDS)
        on_wait()
        for pipe in ready:
            with _report_death(working[pipe]):
                facts, failure = pipe.recv()
            if failure is not None:
                error, its_traceback = failure
                raise error from RuntimeError(its_traceback)
            task = next(tasks, None)
            data = _NO_MORE if task is None else pickle_task(*task)
            with _report_death(working[pipe]):
                pipe.send_bytes(data)
            if task is None:
                del working[pipe]
            yield facts


@contextmanager
def _block_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C in processes that are started in the context, which import for seconds."""
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
def _report_death(process: BaseProcess) -> Iterator[None]:
    """Turns a broken pipe into an error that names the exit code and the remedies."""
    try:
        yield
    except (EOFError, OSError) as error:
        process.join(1)
        if process.exitcode == _UNGUARDED:
            raise ConfigError(
                "the script runs once more in each encoding process: found a call of "
                "prepare_dataset at its top level, expected one below `if __name__ == "
                '"__main__":`; write that line above the call and indent the call, or set '
                "num_proc=1"
            ) from None
        raise ConfigError(
            f"an encoding process died with exit code {process.exitcode}; lower num_proc if "
            "memory ran out, and run again, which keeps all complete shards"
        ) from error


def _serve(pipe: Any, read: Any, place: int) -> None:
    """Runs tasks until one is `None`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)

    def count() -> None:
        read[place] += 1

    try:
        encoder = receive(pipe)
        for piece, file in iter(partial(receive, pipe), None):
            pipe.send((encoder.write(piece, file, count), None))
    except Exception as error:  # noqa: BLE001  # the parent raises it
        with suppress(OSError):  # the parent is gone
            pipe.send((None, picklable(error)))


def picklable(error: Exception) -> tuple[Exception, str]:
    """Returns an error that can be pickled, and its traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # as the parent will
    except Exception:  # noqa: BLE001  # a class of another author may raise anything
        error = RuntimeError(traceback.format_exception_only(error)[-1].strip())
    return error, text


def _die_with_parent() -> None:
    """Ends this process as soon as its parent is gone and can no longer end it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
