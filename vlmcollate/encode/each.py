"""Encodes the examples of a batch one after another, with the index of each in its errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from vlmcollate.errors import SampleError, StrategyError

T = TypeVar("T")


def raise_error(error: SampleError) -> NoReturn:
    """Raises the error of an example, the policy by default."""
    raise error from error.__cause__


def encode_each(
    examples: Sequence[object],
    encode: Callable[[object], Sequence[T]],
    on_error: Callable[[SampleError], Sequence[T]] = raise_error,
) -> list[T]:
    """Encodes examples, with a policy for each that fails.

    Args:
        examples: The dataset's items.
        encode: A function that returns what one example becomes, which may be nothing.
        on_error: Called with each `SampleError`, which holds its index; see `BaseCollator.collate`.

    Raises:
        SampleError: An example is at fault; the error holds its index.
        StrategyError: A strategy has a bug; the error holds the index as well.
    """
    found: list[T] = []
    for index, example in enumerate(examples):
        try:
            found += encode(example)
        except SampleError as error:
            located = error.at(index=index)
            located.__cause__ = error.__cause__
            found += on_error(located)
        except StrategyError as error:
            raise error.at(index=index) from error.__cause__
        except Exception as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"while collating sample {index} of the batch")
            raise
    return found
