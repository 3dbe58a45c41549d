"""Reading encoded media from files and text, within limits."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from vlmcollate.errors import MediaError


def read_file(path: Path, *, kind: str = "image", max_bytes: int, where: str) -> bytes:
    """Reads a regular file that is not too large.

    Args:
        path: The file.
        kind: What it should hold, for errors.
        max_bytes: The largest size that is read.
        where: The place in the sample, for errors.

    Returns:
        The file's content.

    Raises:
        MediaError: If there is no such file, it cannot be read, is not regular or is too large.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            _check_regular(found.st_mode, path, kind, where)
            check_bytes(found.st_size, f"'{path}'", max_bytes, where)
            return file.read(max_bytes)
    except MediaError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(path, error, kind, where) from error


def check_bytes(found: int, name: str, max_bytes: int, where: str) -> None:
    """Refuses encoded media above the limit, with a MediaError."""
    if found > max_bytes:
        raise MediaError(
            f"{name} has {found} bytes, more than max_bytes={max_bytes}; re-encode it smaller, or "
            "raise max_bytes",
            where=where,
        )


def decode_base64(text: str, where: str) -> bytes:
    """Decodes strict base64: the standard alphabet, padded, without line breaks.

    Args:
        text: The base64 text alone, without a `data:` header.
        where: The place in the sample, for errors.

    Returns:
        The decoded bytes.

    Raises:
        MediaError: If the text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MediaError(
            f"'{shortened(text)}' is not base64 ({error}); expected the standard alphabet with "
            "padding and no spaces or line breaks, as base64.b64encode writes it",
            where=where,
        ) from error


def shortened(text: str) -> str:
    """The text, cut to what still reads well in an error."""
    return text if len(text) <= 200 else f"{text[:60]}... ({len(text)} characters)"


def _without_waiting(path: str, flags: int) -> int:
    # Opening a FIFO waits for a writer that may never come. Windows has neither flag.
    extra = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags | extra)


def _check_regular(mode: int, path: Path, kind: str, where: str) -> None:
    if not stat.S_ISREG(mode):
        raise MediaError(
            f"'{path}' is a pipe, socket or device; expected the path of a regular {kind} file",
            where=where,
        )


def _unreadable(path: Path, error: Exception, kind: str, where: str) -> MediaError:
    name = repr(shortened(str(path)))
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
