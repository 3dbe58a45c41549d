"""Rows that a dataset or a stream raises: the error names the row, or the row is rejected."""

from __future__ import annotations

import errno
import io
import json
import socket
import subprocess
import sys

import pytest
from PIL import Image

from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.source_hash import hash_rows
from vlmcollate.errors import ConfigError, MediaError, SampleError, SourceError
from vlmcollate.testing import tiny_processor

ROWS = [{"question": "Hi", "answer": f"w{k}"} for k in range(8)]


class Failing(list[object]):
    """A dataset that raises an error instead of row 3."""

    def __init__(self, error, rows=ROWS):
        super().__init__(rows)
        self.error = error

    def __getitem__(self, index):
        if index == 3:
            raise self.error
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


def rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def shards_of(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.arrow"))}


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__


ERRORS = [RuntimeError("boom"), IndexError("boom"), StopIteration("boom"), OSError("boom")]
NUMBERS = [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.ENETUNREACH, errno.EHOSTUNREACH]
OUTAGES = [
    TimeoutError("read timed out"),
    ConnectionError("no answer"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    OSError(errno.ETIMEDOUT, "timed out"),
    OSError(errno.EAGAIN, "again"),
    OSError(errno.EINTR, "interrupted"),
    PermissionError(errno.EACCES, "denied"),
    PermissionError("denied"),
    OSError(errno.EPERM, "not permitted"),
    socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
]
MACHINE = [
    *(OSError(number, "bad") for number in NUMBERS),
    *OUTAGES,
    ModuleNotFoundError("no decoder"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_the_error_names_the_row_and_keeps_the_cause(tmp_path, collator, error):
    message = rf"dataset, row 3: the row cannot be read: {type(error).__name__}: boom; correct"
    with pytest.raises(SampleError, match=message) as caught:
        prepare_dataset(Failing(error), tmp_path, collator=collator)
    assert error in causes(caught.value)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("num_proc", [1, 2])
def test_skip_rejects_the_row(tmp_path, collator, error, num_proc):
    options = {"collator": collator, "on_error": "skip", "rows_per_shard": 2}
    manifest = prepare_dataset(Failing(error), tmp_path / "a", num_proc=num_proc, **options)
    assert (manifest.rows, dict(manifest.dropped)) == (7, {"SampleError": 1})
    (entry,) = rejected(tmp_path / "a")
    assert entry == {
        "source": "dataset",
        "row": 3,
        "error": "SampleError",
        "reason": f"the row cannot be read: {type(error).__name__}: boom",
        "remedy": "correct the dataset, or remove the row",
    }
    (tmp_path / "a" / "000001.arrow").unlink()
    assert prepare_dataset(Failing(error), tmp_path / "a", **options) == manifest
    prepare_dataset(Failing(error), tmp_path / "b", **options)
    assert shards_of(tmp_path / "a") == shards_of(tmp_path / "b")


@pytest.mark.parametrize("error", MACHINE, ids=repr)
def test_an_error_of_the_machine_ends_the_run(tmp_path, collator, error):
    for raised in (error, chained(OSError(errno.ENOSPC, "full")), chained(OUTAGES[0])):
        with pytest.raises(SourceError, match="source 'dataset' failed at row 3") as caught:
            prepare_dataset(Failing(raised), tmp_path, collator=collator, on_error="skip")
        assert caught.value.__cause__ is raised


def chained(error):
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize("error", [MemoryError("all"), KeyboardInterrupt(), ConfigError("no")])
def test_other_errors_pass_through(tmp_path, collator, error):
    with pytest.raises(type(error)) as caught:
        prepare_dataset(Failing(error), tmp_path, collator=collator, on_error="skip")
    assert caught.value is error


def test_an_error_of_a_sample_is_kept(tmp_path, collator):
    error = MediaError("is broken; replace it", where="images[0]")
    with pytest.raises(MediaError, match=r"^dataset, row 3: images\[0\]: is broken; replace it$"):
        prepare_dataset(Failing(error), tmp_path / "a", collator=collator)
    prepare_dataset(Failing(error), tmp_path / "b", collator=collator, on_error="skip")
    assert [(entry["row"], entry["error"]) for entry in rejected(tmp_path / "b")] == [
        (3, "MediaError")
    ]


def test_a_row_that_can_be_read_again_is_another_source(tmp_path, collator):
    hashes = {hash_rows(Failing(error)) for error in (OSError("a"), OSError("b"))}
    assert len(hashes) == 1
    assert len(hashes | {hash_rows(Failing(ValueError("a"))), hash_rows(ROWS)}) == 3
    options = {"collator": collator, "on_error": "skip"}
    prepare_dataset(Failing(OSError("a")), tmp_path, **options)
    with pytest.raises(ConfigError, match="begun with another source"):
        prepare_dataset(Failing(OSError("a"), ROWS[:3]), tmp_path, **options)


def broken_at_3():
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    data = io.BytesIO()
    Image.new("RGB", (64, 48)).save(data, "PNG")
    files = [data.getvalue()[: 40 if number == 3 else None] for number in range(8)]
    rows = [
        {**row, "image": {"bytes": file, "path": None}}
        for row, file in zip(ROWS, files, strict=True)
    ]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())


def test_a_broken_image_of_a_dataset_is_rejected(tmp_path, collator):
    options = {"collator": collator, "on_error": "skip", "rows_per_shard": 2}
    for out in ("a", "b"):
        assert prepare_dataset(broken_at_3(), tmp_path / out, **options).rows == 7
    (entry,) = rejected(tmp_path / "a")
    assert (entry["row"], entry["error"]) == (3, "SampleError")
    assert "UnidentifiedImageError" in entry["reason"]
    assert shards_of(tmp_path / "a") == shards_of(tmp_path / "b")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_stream_ends_with_its_error(tmp_path, collator, on_error, num_proc):
    error = ValueError("boom")

    def rows():
        yield from ROWS[:3]
        raise error

    message = "source 'stream' failed at row 3: ValueError: boom; run again"
    options = {"collator": collator, "on_error": on_error, "rows_per_shard": 2}
    with pytest.raises(SourceError, match=message) as caught:
        prepare_dataset(rows, tmp_path, num_proc=num_proc, **options)
    assert caught.value.__cause__ is error
    manifest = prepare_dataset(iter(ROWS), tmp_path, **options)
    assert manifest.rows == len(ROWS)


class NoMessageError(Exception):
    def __str__(self):
        raise RuntimeError("no message")


def test_an_error_whose_message_fails_is_named_by_its_class(tmp_path, collator):
    message = "dataset, row 3: the row cannot be read: NoMessageError; correct the dataset"
    with pytest.raises(SampleError, match=message):
        prepare_dataset(Failing(NoMessageError()), tmp_path / "a", collator=collator)

    def stream():
        raise NoMessageError

    with pytest.raises(SourceError, match="'stream' failed at row 0: NoMessageError; run again"):
        prepare_dataset(stream, tmp_path / "b", collator=collator)


SCRIPT = """
import sys
from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor

class Thing:
    pass

class Failing(list):
    def __getitem__(self, index):
        if index == 3:
            raise ValueError(f"found {Thing()} of {Thing}")
        return super().__getitem__(index)

if __name__ == "__main__":
    rows = Failing({"question": "Hi", "answer": f"w{k}"} for k in range(6))
    for count in (1, 2):
        prepare_dataset(rows, f"{sys.argv[1]}/{count}", collator=collator_for(tiny_processor()),
            on_error="skip", rows_per_shard=2, num_proc=count)
"""


def test_a_class_of_the_script_has_one_name_in_all_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", script, tmp_path]
    subprocess.run(command, check=True)  # noqa: S603  # ours
    (entry,) = rejected(tmp_path / "2")
    assert "found <__main__.Thing object> of <class '__main__.Thing'>" in entry["reason"]
    assert shards_of(tmp_path / "1") == shards_of(tmp_path / "2")
    for name in ("manifest.json", "rejected.jsonl"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_function_that_fails_is_row_0(tmp_path, collator):
    def stream():
        raise ValueError("boom")

    with pytest.raises(SourceError, match="source 'stream' failed at row 0: ValueError: boom"):
        prepare_dataset(stream, tmp_path, collator=collator)
