"""The file systems of fsspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmcollate.errors import ConfigError


def check_protocol(scheme: str) -> None:
    """Refuses a scheme for whose URLs a package is missing.

    Raises:
        ConfigError: The package of the scheme is missing, or the scheme is unknown.
    """
    registry = _fsspec()
    try:
        registry.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"URLs of {scheme}:// cannot be read: {error}; install the package of the store, such "
            "as s3fs or gcsfs"
        ) from error


def locate(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Returns the file system of a URL, which fsspec keeps for each process, and its path there.

    Args:
        url: The URL.
        options: The options of the file system.

    Raises:
        ConfigError: A package is missing, or the file system cannot be made.
    """
    scheme = url.partition("://")[0].rpartition("::")[2]
    check_protocol(scheme)
    try:
        found: tuple[Any, str] = _fsspec().core.url_to_fs(url, **options)
    except MemoryError:
        raise
    except Exception as error:  # clients of stores have errors of their own, without a base
        raise ConfigError(
            f"the file system of {scheme}:// cannot be made: {type(error).__name__}: {error}; "
            "correct its options or credentials"
        ) from error
    return found


def _fsspec() -> Any:
    try:
        import fsspec.core
    except ImportError as error:
        raise ConfigError(
            "fsspec, which reads object stores, is not installed; run pip install "
            "'vlmcollate[object-stores]'"
        ) from error
    return fsspec
