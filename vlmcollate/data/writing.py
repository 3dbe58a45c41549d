"""Writing files that appear only when they are complete, even if the disk is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vlmcollate.errors import ConfigError


@contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """Turns an error of the disk into one that names the file and the remedy.

    Raises:
        ConfigError: The disk is full, or fails to read or write for another reason.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write '{file}': {error.strerror or error}; free some space or fix the disk, "
            "and run the same again, which keeps all complete files"
        ) from error


class OutputFile:
    """A file that is being written, whose errors are all those of `disk_errors`.

    After an error it discards further writes, so that a library that finishes its format on the
    way out, such as Arrow, does not hide the error behind another.
    """

    def __init__(self, file: Path, data: BinaryIO) -> None:
        self.data = data
        self._file, self._is_broken = file, False

    def write(self, data: Any) -> int:
        """Writes all of the data at the file's position."""
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        try:
            with disk_errors(self._file):
                while rest and not self._is_broken:  # a disk that is almost full takes a part
                    rest = rest[self.data.write(rest) :]
        except BaseException:
            self._is_broken = True
            raise
        return size

    def sync(self) -> None:
        """Waits until all data is on the disk."""
        with disk_errors(self._file):
            os.fsync(self.data.fileno())


@contextmanager
def partial_file(file: Path) -> Iterator[OutputFile]:
    """Opens a file that appears only when it is complete and on the disk."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with disk_errors(file):
            # a buffer would raise a second time when it is closed
            data: Any = partial.open("w+b", buffering=0)
        with data:
            target = OutputFile(file, data)
            yield target
            target.sync()
        with disk_errors(file):
            partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
