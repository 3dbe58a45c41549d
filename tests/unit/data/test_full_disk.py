"""A disk that fills up: one clear error, and what was finished is resumed."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset, save_sample
from vlmcollate.data.writing import OutputFile, disk_errors
from vlmcollate.errors import SourceError
from vlmcollate.testing import tiny_processor

FULL = r"cannot write '.*': File too large; free some space"


@contextmanager
def files_of_at_most(size: int):
    """As on a full disk, a write stores what fits, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


@pytest.fixture(scope="module")
def rows():
    return [
        [
            {"role": "user", "content": "".join(map(chr, range(97, 110 + number)))},
            {"role": "assistant", "content": "Yes"},
        ]
        for number in range(9)
    ]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("packing", [False, True])
def test_a_full_disk_is_one_error_and_the_run_can_be_resumed(tmp_path, collator, rows, packing):
    whole, out = tmp_path / "whole", tmp_path / "out"
    options = {"collator": collator, "packing": packing, "max_length": 300, "rows_per_shard": 3}
    prepare_dataset(rows, whole, **options)
    expected = files_of(whole)
    sizes = sorted({len(data) for data in expected.values()})
    # in the plan, the first group of rows, the index, the manifest
    for limit in (0, 1, sizes[0] // 9, sizes[0] // 2, *(size - 1 for size in sizes)):
        with files_of_at_most(limit), pytest.raises(ConfigError, match=FULL):
            prepare_dataset(rows, out, **options)
        found = files_of(out)
        plan = found.pop("plan.json")
        assert expected["plan.json"].startswith(plan)
        assert found.items() <= expected.items()
    prepare_dataset(rows, out, **options)
    assert files_of(out) == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB in memory, which only root may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("there is no mount")
    command = [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:  # noqa: S603
        pytest.skip("a file system in memory cannot be mounted")
    yield disk
    subprocess.run([umount, "-l", str(disk)], check=True)  # noqa: S603


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("packing", [False, True])
def test_the_error_names_the_shard_and_the_space(
    tmp_path, small_disk, collator, rows, packing, num_proc, monkeypatch
):
    monkeypatch.setattr("vlmcollate.data.processes._START_METHOD", "forkserver")
    options = {"collator": collator, "packing": packing, "max_length": 300, "rows_per_shard": 3}
    prepare_dataset(rows, tmp_path / "whole", **options)
    ballast = small_disk / "ballast"
    first = (tmp_path / "whole" / "000000.arrow").stat().st_size
    plan = (tmp_path / "whole" / "plan.json").stat().st_size
    page = 4096  # the blocks of the file system
    pages = 16 - (first // page + 1) * num_proc - (plan // page + 1)
    ballast.write_bytes(bytes(page * pages))
    out = small_disk / "out"
    problem = (
        rf"cannot write '{out}/00000\d\.arrow': No space left on device: found [\d.]+ (bytes|kB) "
        r"free, expected (at least|about) [\d.]+ (bytes|kB) for this file.*; free some space"
    )
    with pytest.raises(ConfigError, match=problem) as caught:
        prepare_dataset(rows, out, num_proc=num_proc, **options)
    assert "\n" not in str(caught.value)
    kept = len(list(out.glob("0*.arrow")))
    assert ("about" in str(caught.value)) == (kept > 0)
    ballast.unlink()
    prepare_dataset(rows, out, num_proc=num_proc, **options)
    assert files_of(out) == files_of(tmp_path / "whole")


def test_the_estimate_is_that_of_the_complete_shards(tmp_path, collator, rows, monkeypatch):
    """With a stand-in for the disk, which is full in the third shard."""
    options = {"collator": collator, "rows_per_shard": 3}
    prepare_dataset(rows, tmp_path / "whole", **options)
    shards = sorted((tmp_path / "whole").glob("0*.arrow"))
    write = OutputFile.write

    def full(self, data):
        with disk_errors(self._file, lambda: 10**6, lambda: 500_000):
            if self._file.name == shards[2].name:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(OutputFile, "write", full)
    with pytest.raises(ConfigError) as caught:
        prepare_dataset(rows, tmp_path / "out", **options)
    size = sum(shard.stat().st_size for shard in shards[:2]) / 2
    assert f"expected about 1.5 MB for this file and about {size / 1000:.1f} kB for the 1 " in (
        str(caught.value)
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_full_disk_leaves_the_earlier_sample(tmp_path, collator, rows):
    file = tmp_path / "sample"
    save_sample(collator.encode(rows[0]), file)
    before = files_of(tmp_path)
    with files_of_at_most(100), pytest.raises(ConfigError, match=FULL):
        save_sample(collator.encode(rows[1]), file)
    assert files_of(tmp_path) == before


def test_an_error_of_the_dataset_is_none_of_the_output(tmp_path, collator):
    class Broken(list[int]):
        _fingerprint = "broken"

        def __getitem__(self, index):
            raise OSError(5, "the caller's")

    with pytest.raises(SourceError, match=r"source 'dataset' failed at row 0: .* the caller's"):
        prepare_dataset(Broken([1]), tmp_path / "out", collator=collator)
    assert os.listdir(tmp_path / "out") == ["plan.json"]
