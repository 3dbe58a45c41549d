"""Reading encoded media from local files, within limits."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from vlmcollate.errors import MediaError

_OF_THE_PROCESS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors that every other file would raise, too."""


def read_file(path: Path, *, kind: str, max_bytes: int, where: str) -> bytes:
    """Reads a regular file that is not too large.

    Args:
        path: The file.
        kind: The kind of media that it should hold, for errors.
        max_bytes: The maximum size in bytes, checked before reading.
        where: The path inside the sample, for errors.

    Returns:
        The file's content.

    Raises:
        MediaError: If the file is missing, unreadable, not regular or too large.
        OSError: The process may open no more files, or lacks memory.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            found = os.fstat(file.fileno())
            _check_regular(found.st_mode, path, kind, where)
            check_bytes(found.st_size, f"'{path}'", max_bytes, where)
            return file.read(max_bytes)
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        if getattr(error, "errno", None) in _OF_THE_PROCESS:
            raise
        raise _unreadable(path, error, kind, where) from error


def path_below(root: Path | None, path: Path, where: str) -> Path:
    """Resolves a path, and refuses it if it leads outside a folder.

    Args:
        root: The folder, or `None` to take any path as it is.
        path: The path; relative ones start from the folder.
        where: The path inside the sample, for errors.

    Returns:
        The path, with symlinks followed if there is a folder.

    Raises:
        MediaError: If the path leads outside the folder, or cannot be one.
    """
    if root is None:
        return path
    try:
        root = root.resolve()
        resolved = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise MediaError(
            f"{shorten(str(path))!r} is not a usable path ({error}); correct it", where=where
        ) from error
    if not resolved.is_relative_to(root):
        raise MediaError(
            f"'{path}' leads to '{resolved}', outside root '{root}'; move the file below "
            "root, or choose another root",
            where=where,
        )
    return resolved


def check_bytes(found: int, name: str, max_bytes: int, where: str) -> None:
    """Refuses encoded media above the limit, with a MediaError."""
    if found > max_bytes:
        raise MediaError(
            f"{name} has {found} bytes, more than max_bytes={max_bytes}; re-encode it smaller, or "
            "raise max_bytes",
            where=where,
        )


def files_of_folder(path: Path) -> list[Path] | None:
    """Lists the files of a folder, except hidden ones, in the order of the numbers in their names.

    Args:
        path: The path of a folder, or any other.

    Returns:
        The files, or `None` if there is no folder that can be read.
    """
    try:
        names = os.listdir(path) if path.is_dir() else None
    except (OSError, ValueError):  # reading it as a file names the problem
        return None
    if names is None:
        return None
    return [path / name for name in sorted(names, key=_natural) if not name.startswith(".")]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    """The key by which `frame2` comes before `frame10`."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(int(p), "") if p.isdigit() else (-1, p) for p in pieces], name


def shorten(text: str) -> str:
    """Cuts a text to a length that is readable in an error."""
    return text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


def _open_without_waiting(path: str, flags: int) -> int:
    # opening a FIFO waits for a writer that may never come; Windows has neither flag
    extra = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags | extra)


def _check_regular(mode: int, path: Path, kind: str, where: str) -> None:
    if not stat.S_ISREG(mode):
        raise MediaError(
            f"'{path}' is a pipe, socket or device; expected the path of a regular {kind} file",
            where=where,
        )


def _unreadable(path: Path, error: Exception, kind: str, where: str) -> MediaError:
    name = repr(shorten(str(path)))
    if isinstance(error, IsADirectoryError):
        problem = f"{name} is a directory; expected the path of a regular {kind} file"
    elif isinstance(error, FileNotFoundError):
        problem = (
            f"no file at {name}; correct the path, or set the root option to the folder that "
            "relative paths start from"
        )
    else:
        problem = (
            f"cannot read {name} ({getattr(error, 'strerror', None) or error}); expected the path "
            f"of a readable {kind} file (base64 text needs 'data:{kind}/...;base64,' before it)"
        )
    return MediaError(problem, where=where)
