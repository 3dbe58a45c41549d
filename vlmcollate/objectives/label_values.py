"""The names and numbers in the labels of rows; wrong ones are refused with their path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vlmcollate.errors import ConversationError
from vlmcollate.plain_values import describe, show_all, unwrap


def id_of(name: str, where: str, ids: Mapping[str, int]) -> int:
    """Returns the number of a named class."""
    if name in ids:
        return ids[name]
    known = f"one of {show_all(ids)}" if ids else "a number, since label2id is not set"
    raise ConversationError(
        f"is no known class: found {describe(name)}, expected {known}; correct it, or label2id",
        where=where,
    )


def list_of(value: Any, where: str, expected: str) -> list[Any]:
    """Returns the items of a list as plain Python."""
    if not isinstance(value, list | tuple):
        raise ConversationError(f"expected {expected}, found {describe(value)}", where=where)
    return [unwrap(item) for item in value]


def numbers_of(items: list[Any], where: str, number: int) -> list[float]:
    """Returns the finite numbers of a list of a known length."""
    found = [number_of(item, f"{where}[{k}]") for k, item in enumerate(items)]
    if len(found) != number:
        raise ConversationError(
            f"has {len(found)} numbers, expected {number}, one for each output of the model; "
            "correct it, or num_labels",
            where=where,
        )
    return found


def number_of(value: Any, where: str) -> float:
    """Returns a finite number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if torch.tensor(float(value), dtype=torch.float32).isfinite():
                return float(value)
        except OverflowError:  # an int beyond all floats
            pass
    raise ConversationError(
        f"expected a finite number that float32 holds, found {describe(value)}", where=where
    )
