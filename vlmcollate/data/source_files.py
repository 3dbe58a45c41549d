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
    """Returns the suffix of a file's name in lower case."""
    return (PurePosixPath(file) if isinstance(file, str) else file).suffix.lower()


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


def facts_of(url: str) -> dict[str, Any]:
    """Returns what a store knows about a file now, such as its size.

    Raises:
        ConfigError: The store cannot be read.
    """
    files, path = locate(url, {})
    try:
        for cached in (path, path.rpartition("/")[0]):  # the listing may be of the start
            files.invalidate_cache(cached)
        return dict(files.info(path))
    except Exception as error:  # clients of stores have errors of their own, without a base
        raise ConfigError(f"cannot read '{url}': {message_of(error)}") from error


def parquet_input(file: str | Path) -> AbstractContextManager[Any]:
    """Returns a context with what pyarrow reads fastest: a local path, or an open file of a URL."""
    return nullcontext(file) if isinstance(file, Path) else open_file(file)


def files_below(url: str) -> list[str] | None:
    """Lists the files in a folder of a store and below it.

    Args:
        url: The URL of a file, or of a folder.

    Returns:
        The names of the files after that of the folder; an empty list if the URL names a file, and
        `None` if it names nothing.

    Raises:
        ConfigError: The store cannot be read.
    """
    files, path = locate(url, {})
    try:
        if files.isfile(path):
            return []
        if not files.isdir(path):
            return None
        names: list[str] = files.find(path)
    except Exception as error:  # clients of stores have errors of their own, without a base
        raise ConfigError(f"cannot read '{url}': {message_of(error)}") from error
    top = str(path).rstrip("/") + "/"
    return [name.removeprefix(top) for name in names if name.startswith(top)]
