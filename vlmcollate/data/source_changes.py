"""Noticing that a file of a source changes while its rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmcollate.data.source_files import facts_of
from vlmcollate.errors import ConfigError

_FACTS = (
    *("size", "etag", "generation", "crc", "md5", "md5hash", "content_md5", "contentmd5"),
    *("mtime", "created", "modified", "updated", "lastmodified", "last_modified", "versionid"),
)
"""The facts of the clients of stores, in lower case, that change with the content of a file."""


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
        # the inode may have another number on another machine
        return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    facts = {name.lower(): fact for name, fact in facts_of(file).items()}
    return " ".join(f"{name}={facts[name]}" for name in _FACTS if name in facts)


def check_unchanged(file: str | Path, stamp: str) -> None:
    """Refuses a file that was changed, replaced or removed since its stamp was taken.

    Raises:
        ConfigError: The file has another stamp.
    """
    problem, cause = "it is another file now", None
    try:
        if stamp_of(file) == stamp:
            return
    except ConfigError as error:
        problem, cause = str(error), error
    raise ConfigError(
        f"'{file}' was changed while its rows were read: {problem}; prepare the dataset again, "
        "which keeps the complete shards if the file is the same as at the start"
    ) from cause


def unchanged_rows(
    rows: Iterator[Any], file: str | Path, stamp: str, expected: int
) -> Iterator[Any]:
    """Yields rows of a file; raises before the end if the file was changed meanwhile.

    Args:
        rows: The rows. Bad ones are values of exceptions.
        file: Their file.
        stamp: The stamp that the file had when its rows were counted.
        expected: The number of the rows.

    Raises:
        ConfigError: The file was changed, or has fewer rows than were counted.
    """
    check_unchanged(file, stamp)
    number = 0
    try:
        for row in rows:
            if isinstance(row, Exception):  # a line may be cut
                check_unchanged(file, stamp)
            number += 1
            yield row
    except (ConfigError, OSError):
        check_unchanged(file, stamp)
        raise
    check_unchanged(file, stamp)
    if number != expected:
        raise ConfigError(
            f"'{file}' has other rows than were counted: found {number}, expected {expected}; "
            "prepare the dataset again"
        )
