"""Ctrl-C while a dataset is prepared: everything ends at once, and the run can be resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from vlmcollate.testing import tiny_processor

SECONDS = 10.0
"""Generous, for a machine that is busy: 3 s were measured on two busy cores."""
_RUN = """
import signal, sys, vlmcollate.data.commands as commands
from vlmcollate.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
prepare = commands.prepare_dataset
def told(*args, on_progress, **options):
    def show(progress):
        on_progress(progress)
        print(progress.done, file=sys.stderr, flush=True)
    return prepare(*args, on_progress=show, **options)
commands.prepare_dataset = told
if __name__ == "__main__":
    main()
"""


def test_an_interrupted_run_ends_at_once(tmp_path):
    tiny_processor().save_pretrained(tmp_path / "processor")
    chat = [{"role": "user", "content": "Hi " * 50}, {"role": "assistant", "content": "Yes"}]
    (tmp_path / "chats.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * 30_000)
    (tmp_path / "run.py").write_text(_RUN)
    command = [sys.executable, "run.py", "prepare", "processor", "chats.jsonl", "-o", "out"]
    run = subprocess.Popen(  # noqa: S603  # this Python
        [*command, "--rows-per-shard", "50"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert run.stderr is not None
        while int(run.stderr.readline()) < 60:  # a shard is there
            pass
        start = time.monotonic()
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        _, error = run.communicate(timeout=60)
        took = time.monotonic() - start
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130
    assert "Traceback" not in error
    assert took < SECONDS
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names[-1] == "plan.json"
    assert not [name for name in names if name.startswith(".")]
