"""Whose fault an exception is: the sample's, or a strategy's that has a bug."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from vlmcollate.errors import CollateError, LocatedError, MediaError, StrategyError

T = TypeVar("T")


def run_hook(
    hook: Callable[..., T], /, *arguments: Any, strategy: object, place: str | None = None
) -> T:
    """Runs a strategy's hook, and names the strategy if it fails.

    Args:
        hook: The bound method, or a call of it.
        *arguments: Its arguments.
        strategy: The strategy. Its `media_errors`, if any, mean bad media.
        place: The path inside the sample, if the hook works on a part of it.

    Returns:
        What the hook returns.

    Raises:
        CollateError: The hook raised it; the place is filled in if it was unknown.
        MediaError: The hook raised one of the strategy's `media_errors`.
        StrategyError: The hook raised anything else, which is its cause. A lack of memory passes
            through.
    """
    try:
        return hook(*arguments)
    except CollateError as error:
        if isinstance(error, LocatedError) and error.where is None and place is not None:
            raise error.at(where=place) from error.__cause__
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        name = type(strategy).__name__
        if isinstance(error, getattr(strategy, "media_errors", ())):
            raise MediaError(f"{name} cannot load this media: {found}", where=place) from error
        raise StrategyError(
            f"{name} failed: {found}; mend the strategy, or raise a SampleError if the sample is "
            "at fault",
            where=place,
        ) from error
