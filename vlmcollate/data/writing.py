"""Writing files that appear only when they are complete, also on a disk that is full."""

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
        ConfigError: The disk is full, or does not take or give the bytes for another reason.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write '{file}': {error.strerror or error}; make room there, or mend what is "
            "wrong, and do the same again, which keeps what is complete"
        ) from error


class OutputFile:
    """A file that is being written, all of whose errors are those of `disk_errors`.

    After one, nothing more is written, so that whoever closes a format on the way out, such as
    Arrow, does not hide it behind another.
    """

    def __init__(self, file: Path, data: BinaryIO) -> None:
        self.data = data
        self._file, self._is_broken = file, False

    def write(self, data: Any) -> int:
        """Writes all of it, wherever the file stands."""
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
        """Waits until all is on the disk."""
        with disk_errors(self._file):
            os.fsync(self.data.fileno())


@contextmanager
def partial_file(file: Path) -> Iterator[OutputFile]:
    """Opens a file that appears only when it is complete and on disk."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with disk_errors(file):
            # without a buffer, which would raise once more as it is closed
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
