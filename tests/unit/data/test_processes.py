"""An error in a process of the pool arrives as one error with its place."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType

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


class BrokenRow(Mapping[str, object]):
    """A row that is decoded when it is read, and fails."""

    def __getitem__(self, key):
        raise UnsendableError("this", "that")

    def __iter__(self):
        return iter(["messages"])

    def __len__(self):
        return 1


class Failing(list[object]):
    _fingerprint = "failing"
    how = ""

    def __getitem__(self, index):
        if index == 5 and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 5:
            return BrokenRow()
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
import shutil
import sys
from vlmcollate.data import prepare_dataset

if sys.argv[2] == "removing":  # so each process removes it, too
    shutil.rmtree(sys.argv[1], ignore_errors=True)
collator = None
if __name__ == "__main__":  # its processes end before they need one
    from vlmcollate import collator_for
    from vlmcollate.testing import tiny_processor
    collator = collator_for(tiny_processor())
chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
prepare_dataset([chat] * 4, sys.argv[1], collator=collator, num_proc=2, rows_per_shard=2)
"""


@pytest.mark.parametrize("how", ["keeping", "removing"])
def test_a_script_without_a_guard_is_one_error(tmp_path, how):
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(_UNGUARDED)
    run = Script(script, str(out), how, stream=2, spawn=NIGHTLY)
    error = run.output.read()
    assert run.wait() == 1
    run.end()
    assert error.count("Traceback") == 1
    assert error.splitlines()[-1].startswith("vlmcollate.errors.ConfigError: the script runs once")
    assert 'expected one below `if __name__ == "__main__":`; write that line' in error
    assert out.exists() is (how == "keeping")


_NOT_IMPORTABLE = (
    "the encoding processes cannot import the running program: found one read from {}, expected a "
    "regular file; save the program as a file that calls prepare_dataset below "
    '`if __name__ == "__main__":`, or set num_proc=1'
)


@pytest.mark.parametrize(
    ("name", "found"), [("<stdin>", "standard input"), ("gone.py", "'{folder}/gone.py'")]
)
def test_a_program_that_no_process_can_import_is_refused(tmp_path, monkeypatch, name, found):
    program = ModuleType("__main__")  # as Python makes it
    program.__file__ = str(tmp_path / name)
    monkeypatch.setitem(sys.modules, "__main__", program)
    message = _NOT_IMPORTABLE.format(found.format(folder=tmp_path))
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        prepare_with_two([CHAT] * 4, tmp_path)
    assert not list(tmp_path.iterdir())
    collator = collator_for(tiny_processor())
    assert prepare_dataset([CHAT] * 4, tmp_path / "one", collator=collator).samples == 4


_GUARDED = """
from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor

if __name__ == "__main__":
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    collator = collator_for(tiny_processor())
    prepare_dataset([chat] * 4, "out", collator=collator, num_proc=2, rows_per_shard=2)
"""


@pytest.mark.skipif(not NIGHTLY, reason="starts Python, which imports torch for seconds")
@pytest.mark.parametrize("code", [_GUARDED, _GUARDED.replace("__name__", '"__main__"')])
def test_a_program_from_standard_input_is_one_error(tmp_path, code):
    def run(*arguments, **more):
        return subprocess.run(  # noqa: S603  # this Python
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, **more
        )

    done = run("-", input=code)
    last = f"vlmcollate.errors.ConfigError: {_NOT_IMPORTABLE.format('standard input')}"
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1] == last
    assert run("-c", code).returncode == 0
    assert (tmp_path / "out" / "manifest.json").exists()


def label_all(message):
    """A function that a process can import."""
    return message.role == "assistant"


def nested_choice():
    def train(message):
        return message.role == "assistant"

    return train


@pytest.mark.parametrize("choice", [lambda message: True, nested_choice()])
@pytest.mark.parametrize("as_stream", [False, True])
def test_an_option_that_no_process_can_take_is_named(tmp_path, choice, as_stream):
    collator = collator_for(tiny_processor(), train_on=choice)
    rows, out = [CHAT] * 4, tmp_path / "out"
    message = (
        r"the collator's train_on cannot be sent to an encoding process: found <function .*"
        r"; define it with def or class at the top level of a module, or set num_proc=1"
    )
    with pytest.raises(ConfigError, match=message):
        prepare_dataset(
            iter(rows) if as_stream else rows,
            out,
            collator=collator,
            num_proc=2,
            rows_per_shard=2,
        )
    assert [path.name for path in out.iterdir()] == ["plan.json"]
    assert prepare_dataset(rows, tmp_path / "one", collator=collator, rows_per_shard=2).samples == 4
    named = collator_for(tiny_processor(), train_on=label_all)
    manifest = prepare_dataset(
        rows, tmp_path / "named", collator=named, num_proc=2, rows_per_shard=2
    )
    assert manifest.samples == 4


def prepare_with_two(rows, folder):
    collator = collator_for(tiny_processor())
    return prepare_dataset(rows, folder / "out", collator=collator, num_proc=2, rows_per_shard=2)


@pytest.mark.parametrize("as_stream", [False, True])
def test_a_row_that_no_process_can_take_is_named(tmp_path, as_stream):
    rows = [{"messages": CHAT, "id": number} for number in range(8)]
    rows[5]["id"] = (number for number in range(3))
    message = (
        rf"{'stream' if as_stream else 'dataset'}, row 5 cannot be sent to an encoding process: "
        r"TypeError: cannot pickle 'generator' object; remove that object from the row, or set "
        "num_proc=1"
    )
    with pytest.raises(ConfigError, match=message):
        prepare_with_two(iter(rows) if as_stream else rows, tmp_path)


class Guarded(list[object]):
    """A dataset that holds an open file."""

    _fingerprint = "guarded"

    def __init__(self, rows, file):
        super().__init__(rows)
        self.file = file


def test_a_dataset_that_no_process_can_take_is_named(tmp_path):
    with (tmp_path / "open").open("w") as file:
        rows = Guarded([CHAT] * 4, file)
        with pytest.raises(ConfigError, match="the dataset, a Guarded, cannot be sent to an enc"):
            prepare_with_two(rows, tmp_path)


class Unloadable:
    """An object that a process can be sent and cannot load."""

    def __reduce__(self):
        return import_module, ("no_such_module",)


@pytest.mark.parametrize("as_stream", [False, True])
def test_what_a_process_cannot_load_is_a_config_error(tmp_path, as_stream):
    rows = [{"messages": CHAT, "id": Unloadable()} for _ in range(4)]
    message = (
        "an encoding process cannot load what was sent to it: ModuleNotFoundError: No module named "
        "'no_such_module'; define functions and classes at the top level of a module"
    )
    with pytest.raises(ConfigError, match=message):
        prepare_with_two(iter(rows) if as_stream else rows, tmp_path)
