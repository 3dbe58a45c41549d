"""Writing files that appear only when they are complete, even if the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vlmcollate.errors import ConfigError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REMEDY = "and run the same again, which keeps all complete files"


class DiskFullError(ConfigError):
    """A disk is full; a run adds the space that it needs.

    Args:
        file: The file that is being written.
        reason: The reason of the system.
        free: The bytes that are free as soon as the unfinished file is removed.
        needed: The bytes of the file: the minimum, or an estimate if `whole` is one.
        whole: What the rest of the run needs, in words, or "".
    """

    def __init__(self, file: str, reason: str, free: int, needed: int, whole: str = "") -> None:
        self.file, self.reason, self.free = file, reason, free
        self.needed, self.whole = needed, whole
        size = f"{'about' if whole else 'at least'} {shown_bytes(needed)}"
        super().__init__(
            f"cannot write '{file}': {reason}: found {shown_bytes(free)} free, expected {size} "
            f"for this file{whole}; free some space, {_REMEDY}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.reason, self.free, self.needed, self.whole)


def shown_bytes(number: float) -> str:
    """Returns a number of bytes in words.

    Example:
        >>> shown_bytes(1_300_000)
        '1.3 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


@contextmanager
def disk_errors(
    file: Path, size: Callable[[], int] = lambda: 0, more: Callable[[], int] = lambda: 1
) -> Iterator[None]:
    """Turns an error of the disk into one that names the file and the remedy.

    Args:
        file: The file that is being written.
        size: Returns the bytes that it has.
        more: Returns the bytes that are still to be written to it, as far as they are known.

    Raises:
        ConfigError: The disk is full, or fails to read or write for another reason.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            has = size()
            free = shutil.disk_usage(file.parent).free + has
            raise DiskFullError(str(file), reason, free, has + more()) from error
        raise ConfigError(
            f"cannot write '{file}': {reason}; free some space or fix the disk, {_REMEDY}"
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
            with disk_errors(self._file, self._size, lambda: rest.nbytes):
                while rest and not self._is_broken:  # a disk that is almost full takes a part
                    rest = rest[self.data.write(rest) :]
        except BaseException:
            self._is_broken = True
            raise
        return size

    def sync(self) -> None:
        """Waits until all data is on the disk."""
        with disk_errors(self._file, self._size):
            os.fsync(self.data.fileno())

    def _size(self) -> int:
        return os.fstat(self.data.fileno()).st_size


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
