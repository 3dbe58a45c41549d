"""Noticing that a file of a source changes while its rows are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlmcollate.data.source_files import facts_of
from vlmcollate.data.source_hash import hash_file
from vlmcollate.errors import ConfigError

_FACTS = (
    *("size", "etag", "generation", "crc", "md5", "md5hash", "content_md5", "contentmd5"),
    *("mtime", "created", "modified", "updated", "lastmodified", "last_modified", "versionid"),
)
"""The facts of the clients of stores, in lower case, that change with the content of a file."""
_CTIME = " ctime="
"""Also changes with the permissions and the hard links of a file, and differs in a copy of it."""
_SIZE = re.compile(r"size=\d+")


def stamp_of(file: str | Path) -> str:
    """Returns what a system or a store keeps about the content of a file, without reading it.

    Raises:
        ConfigError: The file is missing, or its store cannot be read.
    """
    if isinstance(file, Path):
        try:
            found = file.stat()
        except OSError as error:
            raise ConfigError(f"cannot read '{file}': {error.strerror or error}") from error
        return f"size={found.st_size} mtime={found.st_mtime_ns}{_CTIME}{found.st_ctime_ns}"
    facts = {name.lower(): fact for name, fact in facts_of(file).items()}
    return " ".join(f"{name}={facts[name]}" for name in _FACTS if name in facts)


def check_unchanged(file: str | Path, stamp: str, content: str = "") -> str:
    """Refuses a file whose content was changed, or that was removed, since its stamp was taken.

    Args:
        file: The file.
        stamp: The stamp.
        content: The hash of its content then, which decides if the stamp is another one but the
            size the same. Without it, another time of modification is a change.

    Returns:
        The stamp that the file has now.

    Raises:
        ConfigError: The file has other content.
    """
    try:
        found = stamp_of(file)
        problem = _difference(file, stamp, found, content)
        cause = None
    except (ConfigError, OSError) as error:
        problem, cause = str(error), error
    if problem:
        raise ConfigError(
            f"'{file}' was changed while its rows were read: {problem}; prepare the dataset again, "
            "which keeps the complete shards if the file is the same as at the start"
        ) from cause
    return found


def _difference(file: str | Path, stamp: str, found: str, content: str) -> str:
    """Returns what differs from the start, or ""."""
    if found == stamp:
        return ""
    if _size_of(found) != _size_of(stamp):
        return "its size is another one now"
    if content:
        return "" if _has_content(file, found, content) else "its content is another one now"
    same = found.partition(_CTIME)[0] == stamp.partition(_CTIME)[0]
    return "" if same else "it was written or replaced"


def _size_of(stamp: str) -> str:
    found = _SIZE.match(stamp)
    return found[0] if found else ""


@lru_cache(maxsize=1024)
def _has_content(file: str | Path, stamp: str, content: str) -> bool:
    """Whether a file has some content; read once for each stamp, and not for each piece."""
    return hash_file(file) == content


def unchanged_rows(
    rows: Iterator[Any], file: str | Path, stamp: str, content: str, expected: int
) -> Iterator[Any]:
    """Yields rows of a file; raises before the end if the file was changed meanwhile.

    Args:
        rows: The rows. Bad ones are values of exceptions.
        file: Their file.
        stamp: The stamp that the file had when its rows were counted.
        content: The hash of its content then, or "".
        expected: The number of the rows.

    Raises:
        ConfigError: The file was changed, or has fewer rows than were counted.
    """
    begun = check_unchanged(file, stamp, content)
    number = 0
    try:
        for row in rows:
            if isinstance(row, Exception):  # a line may be cut, even if the file is whole again
                check_unchanged(file, begun)
            number += 1
            yield row
    except (ConfigError, OSError):
        check_unchanged(file, begun)
        check_unchanged(file, stamp, content)
        raise
    check_unchanged(file, stamp, content)
    if number != expected:
        raise ConfigError(
            f"'{file}' has other rows than were counted: found {number}, expected {expected}; "
            "prepare the dataset again"
        )
