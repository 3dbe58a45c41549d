"""A disk that fills up: one clear error, and what was finished is resumed."""

from __future__ import annotations

import os
import resource
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset, save_sample
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


def test_a_full_disk_leaves_the_earlier_sample(tmp_path, collator, rows):
    file = tmp_path / "sample"
    save_sample(collator.encode(rows[0]), file)
    before = files_of(tmp_path)
    with files_of_at_most(100), pytest.raises(ConfigError, match=FULL):
        save_sample(collator.encode(rows[1]), file)
    assert files_of(tmp_path) == before


def test_an_error_of_something_else_passes_through(tmp_path, collator):
    class Broken(list[int]):
        _fingerprint = "broken"

        def __getitem__(self, index):
            raise OSError(5, "the caller's")

    with pytest.raises(OSError, match="the caller's"):
        prepare_dataset(Broken([1]), tmp_path / "out", collator=collator)
    assert os.listdir(tmp_path / "out") == ["plan.json"]
