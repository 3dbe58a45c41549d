"""The files of a source, local or in an object store."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from vlmcollate.errors import ConfigError
from vlmcollate.media.loading.connecting import message_of
from vlmcollate.media.loading.stored_files import locate

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)


def is_url(file: object) -> bool:
    """Whether a file is named by a URL."""
    return isinstance(file, str) and _URL.match(file) is not None


def as_file(file: Any) -> str | Path:
    """Returns the name of a file: the URL of another place as it is, and any other as a path."""
    if isinstance(file, str) and file[:8].lower() == "file:///":
        return Path(unquote(urlsplit(file).path))
    return file if is_url(file) else Path(file)


def suffix_of(file: str | Path) -> str:
    """Returns the suffix of a file's name."""
    return PurePosixPath(file).suffix if isinstance(file, str) else file.suffix


def open_file(file: str | Path) -> BinaryIO:
    """Opens a file for reading.

    Raises:
        ConfigError: A URL cannot be read.
    """
    if isinstance(file, Path):
        return file.open("rb")
    files, path = locate(file, {})
    try:
        opened: BinaryIO = files.open(path, "rb")
    except Exception as error:  # clients of stores have errors of their own, without a base
        raise ConfigError(f"cannot read '{file}': {message_of(error)}") from error
    return opened


def parquet_input(file: str | Path) -> AbstractContextManager[Any]:
    """Returns a context with what pyarrow reads fastest: a local path, or an open file of a URL."""
    return nullcontext(file) if isinstance(file, Path) else open_file(file)


def files_at(file: str, suffixes: tuple[str, ...]) -> list[str] | None:
    """Lists the files that a URL names.

    Args:
        file: The URL of a file, or of a folder.
        suffixes: The suffixes of the files that count in a folder.

    Returns:
        The file, or those of the folder in order; `None` if there is neither.

    Raises:
        ConfigError: The store cannot be read.
    """
    files, path = locate(file, {})
    try:
        if files.isfile(path):
            return [file]
        if not files.isdir(path):
            return None
        names = [entry["name"] for entry in files.ls(path, detail=True) if entry["type"] == "file"]
    except Exception as error:  # clients of stores have errors of their own, without a base
        raise ConfigError(f"cannot read '{file}': {message_of(error)}") from error
    return [
        f"{file.rstrip('/')}/{PurePosixPath(name).name}"
        for name in sorted(names)
        if PurePosixPath(name).suffix in suffixes
    ]
