"""Reading shards: streams of Arrow that are read one group of rows at a time.

Shapes: N rows, G groups of rows.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
import torch

from vlmcollate.data.groups import Group, sample_from_raw
from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.sealing import DamagedError, FastChecksum, fast_checksum, verify_checksum
from vlmcollate.data.shard_index import (
    STREAM_END,
    TAIL,
    ShardIndex,
    lengths_from_index,
    split_tail,
)
from vlmcollate.errors import ConfigError
from vlmcollate.sample import EncodedSample

_READ_AHEAD = 16 << 10
"""The bytes at the end of a shard that are read at once, which hold the index of most shards."""

_CACHED = 512 << 10
"""Bytes that stay in a processor's cache while their checksum is computed."""


class _File:
    """An open file, which is closed with the last reference to it.

    Its reads do not move a position, so that threads and forked processes share it.
    """

    def __init__(self, file: Path | str) -> None:
        self._file, self._number = file, -1
        self._number = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self._number).st_size

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` ends first
        if self._number >= 0:
            close(self._number)

    @cached_property
    def _mapped(self) -> npt.NDArray[np.uint8] | None:
        return _map(self._file, self.size)

    def view(self, start: int, size: int) -> npt.NDArray[np.uint8] | None:
        """Returns bytes of the file without a copy, or `None` if the system maps no files.

        What is written to them stays in this process, and later views hold it, too.

        Args:
            start: The first byte.
            size: The number of bytes, none of which is behind the end that the file had.
        """
        # reading memory behind the end of a file that was truncated would end the process
        if self._mapped is None or os.fstat(self._number).st_size < self.size:
            return None
        return self._mapped[start : start + size]

    def read(
        self, start: int, size: int, on_read: Callable[[memoryview], object] = lambda _: None
    ) -> npt.NDArray[np.uint8]:
        """Reads bytes into memory of their own; fewer if the file ends before.

        Args:
            start: The first byte.
            size: The number of bytes.
            on_read: Called with each part of the bytes while it is in the processor's cache.
        """
        out = np.empty(max(min(size, self.size - start), 0), np.uint8)
        view, found = out.data, 0
        while found < len(view):
            part = view[found : found + _CACHED]
            more = self._read_into(part, start + found)
            if not more:  # the file was truncated
                return out[:found]
            on_read(part[:more])
            found += more
        return out

    def _read_into(self, out: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._number, [out], start)
        with Path(self._file).open("rb", buffering=0) as data:  # as on Windows
            data.seek(start)
            return data.readinto(out) or 0


def _map(file: Path | str, size: int) -> npt.NDArray[np.uint8] | None:
    """Maps a file into memory, so that what is written there does not change the file.

    Python's own mapping would keep the file open for as long as any of its samples.
    """
    if os.name == "nt":  # where no other process could replace the file
        return None
    try:
        return torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError:  # the file system maps no files
        return None


@attrs.frozen(eq=False)
class Shard:
    """The rows of an open shard, each read only after the checksum of its bytes was verified.

    Attributes:
        file: The file.
        facts: The facts in its index.
        index: Its index.
    """

    file: Path
    facts: ShardFacts
    index: ShardIndex
    _data: _File

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(G + 1,) the first row of each group, and the number of rows."""
        return np.concatenate([[0], np.cumsum(self.index.rows, dtype=np.int64)])

    @cached_property
    def edges(self) -> npt.NDArray[np.int64]:
        """(G + 1,) the first byte of each group, and the end of the last."""
        start, _ = self.index.schema
        return start + np.concatenate([[0], np.cumsum(self.index.sizes)])

    @classmethod
    def of(cls, file: Path) -> Shard:
        """Opens a shard and reads its index.

        Raises:
            ConfigError: The file is missing, damaged or no shard.
        """
        with _ShardErrors(file):
            data = _File(file)
            data_of_index, seal = _read_index(data)
            index = ShardIndex.from_bytes(data_of_index, seal)
            facts = ShardFacts(**index.facts, seal=seal)
            return cls(file=file, facts=facts, index=index, data=data)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """(N,) the tokens of each row."""
        return self.index.lengths

    def check_origin(self, run: str) -> None:
        """Refuses a shard of another run, or another shard of this run.

        Raises:
            ConfigError: The shard belongs elsewhere.
        """
        remedy = "put the right shard back, or remove this one and prepare the dataset again"
        if self.facts.run != run:
            raise ConfigError(
                f"'{self.file}' is of another dataset: found run {self.facts.run[:12]}..., "
                f"expected {run[:12]}...; {remedy}"
            )
        if self.facts.file != self.file.name:
            raise ConfigError(
                f"'{self.file}' is another shard: found '{self.facts.file}', "
                f"expected '{self.file.name}'; {remedy}"
            )

    def check_seal(self, seal: str) -> None:
        """Refuses a shard that was replaced since its seal was read.

        Raises:
            ConfigError: The shard has another seal.
        """
        with _ShardErrors(self.file):
            if self.facts.seal != seal:
                raise DamagedError("it was replaced since it was opened")

    def check_groups(self) -> None:
        """Verifies all bytes before the index.

        Raises:
            ConfigError: The bytes differ from those that were written.
        """
        with _ShardErrors(self.file):
            size, expected = self.index.schema
            verify_checksum(self._data.read(0, size), expected, "its schema was changed")
            for group in range(len(self.index.rows)):
                self._read_bytes(group)
            end = self._data.read(int(self.edges[-1]), len(STREAM_END))
            if end.tobytes() != STREAM_END:
                raise DamagedError("the end of its rows was changed")

    def find_group(self, row: int) -> int:
        """Returns the group of a row."""
        return bisect_right(self.starts.data, row) - 1

    def read_alone(self, group: int) -> EncodedSample | None:
        """Reads the row of a group that has a single one, or returns `None`.

        Raises:
            ConfigError: The shard is damaged.
        """
        if self.index.rows[group] != 1:
            return None
        with _ShardErrors(self.file):
            message, raw = self._read_bytes(group), self.index.raws[group]
            return sample_from_raw(message[raw:]) if raw else Group.of(message, 1).sample(0)

    def read_group(self, group: int) -> Group:
        """Reads a group of rows; verifies its bytes first, since damage can crash Arrow.

        Raises:
            ConfigError: The shard is damaged.
        """
        with _ShardErrors(self.file):
            return Group.of(self._read_bytes(group), int(self.index.rows[group]))

    def _read_bytes(self, group: int) -> npt.NDArray[np.uint8]:
        """Returns the bytes of a group, which share the memory of the file if nothing changed."""
        start, end = self.edges[group : group + 2].tolist()
        mapped = self._data.view(start, end - start)
        if mapped is not None and fast_checksum(mapped) == self.index.sums[group].tobytes():
            return mapped
        total = FastChecksum()  # a tensor of a row may have been written to, so it is read again
        found = self._data.read(start, end - start, total.update)
        expected = self.index.sums[group].tobytes()
        if total.digest() != expected:
            total.verify(expected, f"the bytes of {self._shown_rows(group)} were changed")
        return found

    def _shown_rows(self, group: int) -> str:
        first, after = self.starts[group : group + 2].tolist()
        return f"rows {first} to {after - 1}" if after - first > 1 else f"row {first}"


def read_lengths(file: str, seal: str) -> npt.NDArray[np.int32] | None:
    """Reads the lengths of a shard, a fraction of what `Shard.of` reads.

    Args:
        file: The file.
        seal: The seal that the shard should have.

    Returns:
        (N,) the lengths, or `None` if it has another seal.

    Raises:
        ConfigError: The file is missing or damaged.
    """
    with _ShardErrors(file):
        index, found = _read_index(_File(file))
        if found != seal:
            return None
        verify_checksum(index, seal, "its index was changed")
        return lengths_from_index(index)


def _read_index(data: _File) -> tuple[bytes, str]:
    """Reads the index of a shard, and the seal."""
    start = max(data.size - _READ_AHEAD, 0)
    end = data.read(start, _READ_AHEAD).tobytes()
    seal, size = split_tail(end)
    if size + TAIL > data.size:
        raise DamagedError("its index is larger than the file")
    if size + TAIL > len(end):
        end = data.read(data.size - TAIL - size, size + TAIL).tobytes()
    return end[len(end) - TAIL - size : len(end) - TAIL], seal


@attrs.frozen
class _ShardErrors:
    """Turns whatever damage raises into one error that names the file and the remedy.

    This is no generator, since each row is read in such a context.
    """

    file: Path | str

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, ConfigError):  # a package is not installed
            return
        if isinstance(error, FileNotFoundError):
            raise ConfigError(
                f"'{self.file}' is missing; prepare the dataset again, which writes only what is "
                "missing"
            ) from error
        # the exceptions of Arrow are among these
        if isinstance(error, DamagedError | OSError | ValueError | KeyError | TypeError):
            # some end with a line break
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"'{self.file}' is damaged, or no shard of vlmcollate ({reason}); remove it and "
                "prepare the dataset again, which rewrites only this shard"
            ) from error
