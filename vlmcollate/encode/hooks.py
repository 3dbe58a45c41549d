"""Runs the hooks of strategies, with errors that name the strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from vlmcollate.errors import CollateError, LocatedError, MediaError, StrategyError

T = TypeVar("T")


def are_ours(*functions: Callable[..., Any] | None) -> bool:
    """Returns whether all of some stages are functions of this package, or missing."""
    return all(f is None or f.__module__.startswith("vlmcollate.") for f in functions)


def run_hook(
    hook: Callable[..., T],
    /,
    *arguments: Any,
    strategy: object,
    place: str | None = None,
    is_of_batch: bool = False,
) -> T:
    """Runs a strategy's hook, and names the strategy if the hook fails.

    Args:
        hook: The bound method, or a partial call of it.
        *arguments: Its arguments.
        strategy: The strategy. Its `media_errors`, if any, mean bad media.
        place: The path inside the sample, if the hook works on a part of it.
        is_of_batch: Whether the hook works on a batch, so that it knows the index of a sample.

    Returns:
        The result of the hook.

    Raises:
        CollateError: The hook raised it; the place is filled in if it was unknown.
        MediaError: The hook raised one of the strategy's `media_errors`.
        StrategyError: The hook raised any other error, which is the cause. Out-of-memory errors
            pass through.
    """
    try:
        return hook(*arguments)
    except LocatedError as error:
        if error.index is not None and not is_of_batch:  # of another batch, which the hook collated
            raise _failure(strategy, error, place) from error
        if error.where is None and place is not None:
            raise error.at(where=place) from error.__cause__
        raise
    except (CollateError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, getattr(strategy, "media_errors", ())):
            raise MediaError(
                f"{_name(strategy)} cannot load this media: {_shown(error)}", where=place
            ) from error
        raise _failure(strategy, error, place) from error


def check_result(
    value: object, expected: str, *, holds: bool, strategy: object, where: str | None = None
) -> None:
    """Refuses a wrong result of a strategy.

    Raises:
        StrategyError: `holds` is false.
    """
    if not holds:
        raise breach(value, expected, strategy, where)


def breach(
    value: object, expected: str, strategy: object, where: str | None = None
) -> StrategyError:
    """Returns the error for a wrong result of a strategy."""
    return StrategyError(
        f"{_name(strategy)} returned a wrong result: found {_outline(value)}, expected "
        f"{expected}; correct the strategy",
        where=where,
    )


def _failure(strategy: object, error: Exception, place: str | None) -> StrategyError:
    return StrategyError(
        f"{_name(strategy)} failed: {_shown(error)}; correct the strategy, or raise a "
        "SampleError if the sample is at fault",
        where=place,
    )


def _name(strategy: object) -> str:
    """Returns the name of a strategy's class, or of a function."""
    return str(getattr(strategy, "__qualname__", type(strategy).__name__))


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _outline(value: object) -> str:
    """Returns a value's type, with its mode, dtype and shape if it has them."""
    if isinstance(value, tuple):  # a turn
        return repr(value)
    found = (getattr(value, name, "") for name in ("mode", "dtype", "shape"))
    facts = ("" if callable(fact) else str(fact) for fact in found)
    return " ".join([type(value).__name__, *filter(None, facts)])
