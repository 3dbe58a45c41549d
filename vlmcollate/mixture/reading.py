"""Reading rows of sources, with errors that name the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from vlmcollate.errors import CollateError, ConfigError, SourceError

T = TypeVar("T")


def is_map_style(dataset: object) -> bool:
    """Whether a dataset has rows by number."""
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def check_map_style(dataset: Any, name: str) -> None:
    """Refuses a map-style dataset whose rows have no numbers, or that has none.

    Raises:
        ConfigError: It has keys, or no row.
    """
    if isinstance(dataset, str | bytes) or hasattr(dataset, "keys"):
        raise ConfigError(
            f"source {name!r} is wrong: found {type(dataset).__name__}, expected a dataset with "
            "rows by number; load it first, and pass one split"
        )
    if not len(dataset):
        raise ConfigError(f"source {name!r} has no rows; remove it, or set its weight to 0")


def read_row(name: str, index: int, read: Callable[[], T]) -> T:
    """Reads a row.

    Args:
        name: The name of the source.
        index: The number of the row.
        read: A function that returns it.

    Raises:
        SourceError: The source raised an error other than those of this package.
    """
    try:
        return read()
    except (CollateError, StopIteration):
        raise
    except Exception as error:
        raise SourceError(
            f"source {name!r} failed at row {index}: {type(error).__name__}: {error}; correct the "
            "dataset, or remove the row"
        ) from error
