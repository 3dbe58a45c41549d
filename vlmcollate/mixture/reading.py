"""Reading rows of sources, with errors that name the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.data import IterableDataset

from vlmcollate.errors import CollateError, ConfigError, LocatedError, SourceError

T = TypeVar("T")


def is_map_style(dataset: object) -> bool:
    """Whether a dataset has rows by number."""
    has_rows = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    return has_rows and not isinstance(dataset, IterableDataset)  # which may have a length


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
        SourceError: The source raised an error other than those of this package. A lack of memory
            passes through.
    """
    try:
        return read()
    except LocatedError as error:
        raise named_error(error, name, index) from error.__cause__
    except (CollateError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise SourceError(
            f"source {name!r} failed at row {index}: {shown_error(error)}; run again if that may "
            "pass, or correct the dataset, or remove the row"
        ) from error


def shown_error(error: BaseException | None) -> str:
    """Returns the class and the message of an error, or only the class if the message fails."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  # a class of another author may raise anything
        return name


def named_error(error: LocatedError, name: str, index: int) -> LocatedError:
    """Returns an error that names the source and the row."""
    problem = f"{error.problem} (row {index} of the source {name!r})"
    return type(error)(problem, where=error.where, index=error.index)
