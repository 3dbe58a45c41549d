"""An error in a process of the pool arrives as one error with its place."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import NIGHTLY
from tests.forking import Script
from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]


class UnsendableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Failing(list[object]):
    _fingerprint = "failing"
    how = ""

    def __getitem__(self, index):
        if index == 5 and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 5:
            raise UnsendableError("this", "that")
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("killed", ConfigError, "an encoding process died with exit code -9; lower num_proc"),
        ("unsendable", RuntimeError, "UnsendableError: this and that"),
    ],
)
def test_a_failing_process_is_one_error(tmp_path, how, kind, message):
    rows, collator, out = Failing([CHAT] * 8), collator_for(tiny_processor()), tmp_path / "out"
    rows.how = how
    with pytest.raises(kind, match=message) as caught:
        prepare_dataset(rows, out, collator=collator, num_proc=2, rows_per_shard=2)
    if how != "killed":
        assert "in __getitem__" in str(caught.value.__cause__)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


_UNGUARDED = """
import sys
from vlmcollate.data import prepare_dataset

collator = None
if __name__ == "__main__":  # its processes end before they need one
    from vlmcollate import collator_for
    from vlmcollate.testing import tiny_processor
    collator = collator_for(tiny_processor())
chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
prepare_dataset([chat] * 4, sys.argv[1], collator=collator, num_proc=2, rows_per_shard=2)
"""


def test_a_script_without_a_guard_is_one_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(_UNGUARDED)
    run = Script(script, str(tmp_path / "out"), stream=2, spawn=NIGHTLY)
    error = run.output.read()
    assert run.wait() == 1
    run.end()
    assert error.count("Traceback") == 1
    assert 'expected one below `if __name__ == "__main__":`; write that line' in error
