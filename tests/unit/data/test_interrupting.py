"""Ctrl-C while a dataset is prepared: everything ends at once, and the run can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.forking import Script
from vlmcollate.cli.app import app
from vlmcollate.data.interrupting import defer_interrupts
from vlmcollate.testing import tiny_processor

SECONDS = 4.0
"""Twice the promise, for a machine that is busy; a begun shard would take 12 s at least."""
PER_SHARD = 120
_COMMAND = ["prepare", "processor", "chats.jsonl", "--on-error", "skip"]
_COMMAND += ["--rows-per-shard", str(PER_SHARD), "-o"]
_RUN = """
import hashlib, os, signal, sys, time
import vlmcollate.data as data
import vlmcollate.data.encoder as encoder
from vlmcollate.cli.app import main

read_piece, prepare = encoder.read_piece, data.prepare_dataset

def slow(piece, dataset):  # in each process, which imports this, after the first shard
    for row in read_piece(piece, dataset):
        if os.environ.get("LONG_ROW") and piece.first:  # one instruction, as of a decoder
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        time.sleep(0.1 if piece.first else 0)
        yield row

def reporting(*args, on_progress, **options):
    def show(progress):
        on_progress(progress)
        print("done", progress.done, file=sys.stderr, flush=True)
    return prepare(*args, on_progress=show, **options)

encoder.read_piece = slow
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    data.prepare_dataset = reporting
    main()
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a script, its inputs, and what a run that nothing interrupts writes."""
    path = tmp_path_factory.mktemp("interrupting")
    tiny_processor().save_pretrained(path / "processor")
    lines = ["no row"] + [
        json.dumps(
            [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Yes"}]
        )
        for n in range(4 * PER_SHARD - 1)
    ]
    (path / "chats.jsonl").write_text("\n".join(lines))
    (path / "run.py").write_text(_RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        prepare("whole")
    return path


@pytest.fixture
def folder(prepared, monkeypatch):
    monkeypatch.chdir(prepared)
    yield prepared
    shutil.rmtree(prepared / "out")


def prepare(out: str) -> None:
    result = CliRunner().invoke(app, [*_COMMAND, out])
    assert result.exit_code == 0, result.stderr


def interrupted(processes: int, rows: int, signals: int) -> tuple[float, int, str]:
    """Sends Ctrl-C after a number of rows; returns the seconds until the end, and how it ended."""
    command = [*_COMMAND, "out", "--num-proc", str(processes)]
    run = Script(Path("run.py"), *command, stream=2, spawn=not rows)
    overdue = threading.Timer(150, os.killpg, (run.pid, signal.SIGKILL))
    overdue.start()
    try:
        for line in run.output:
            if line.startswith("done") and int(line.split()[1]) >= rows:
                break
        time.sleep(0.3)
        start = time.monotonic()
        for _ in range(signals):
            with suppress(ProcessLookupError):  # it may have ended already
                os.killpg(run.pid, signal.SIGINT)  # as a terminal does
            time.sleep(0.01)
        error = run.output.read()  # until no process is left that could write there
        return time.monotonic() - start, run.wait(), error
    finally:
        overdue.cancel()
        run.end()


@pytest.mark.parametrize(
    ("processes", "rows", "signals"),
    [
        (1, PER_SHARD + 1, 1),
        (2, 0, 1),  # the processes are spawned, and importing
        (2, PER_SHARD + 10, 20),
    ],
)
def test_an_interrupted_run_ends_at_once_and_is_resumed(folder, processes, rows, signals):
    took, code, error = interrupted(processes, rows, signals)
    assert code == 130, error
    assert "Traceback" not in error
    assert took < SECONDS
    kept = (folder / "out" / "000000.arrow").exists()
    outcome = "1 shard is kept" if kept else "no shard is complete"
    assert f"interrupted: {outcome} in 'out'; the same command " in error
    assert {path.name for path in (folder / "out").iterdir()} <= {
        "000000.arrow",
        "plan.json",
        "rejected.jsonl",
    }
    prepare("out")
    assert files_of(folder / "out") == files_of(folder / "whole")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_long_row_does_not_delay_the_end(folder, processes, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("LONG_ROW", "1")
        took, code, error = interrupted(processes, PER_SHARD, 1)
    assert (code, took < SECONDS) == (130, True), error
    assert "interrupted: 1 shard is kept in 'out'; the same command resumes" in error
    prepare("out")
    assert files_of(folder / "out") == files_of(folder / "whole")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_deferred_interrupts_come_at_the_end():
    before, done = signal.signal(signal.SIGINT, signal.default_int_handler), []

    def work() -> None:
        with defer_interrupts():
            for step in range(3):
                signal.raise_signal(signal.SIGINT)
                done.append(step)

    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [0, 1, 2]
