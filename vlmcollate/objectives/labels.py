"""The labels of rows: a class, several classes, or numbers to predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

from vlmcollate.errors import ConversationError
from vlmcollate.plain_values import describe, show_all, unwrap

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Label = int | list[float]
_COLUMNS = ("labels", "label")


def pop_label(row: dict[str, Any]) -> tuple[str, Any]:
    """Removes the label from the fields of an example.

    Returns:
        Its column, and its value as plain Python.

    Raises:
        ConversationError: There is none, or there are two.
    """
    names = [name for name in _COLUMNS if name in row]
    if len(names) > 1:
        raise ConversationError("has 'labels' and 'label'; keep one", where="label")
    if not names or (value := unwrap(row.pop(names[0]))) is None:
        raise ConversationError(
            f"has no label: found a dict with {show_all(row)}, expected 'labels' beside the "
            "conversation; add it, or drop the row"
        )
    return names[0], value


def read_class(value: Any, where: str, ids: Mapping[str, int], number: int) -> Label:
    """Reads the number or the name of one class.

    Args:
        value: The value.
        where: Its path.
        ids: The number of each name.
        number: The number of classes.

    Raises:
        ConversationError: It is neither.
    """
    if isinstance(value, str):
        return _id_of(value, where, ids)
    if isinstance(value, bool) or not isinstance(value, int):
        hint = "; for other numbers set problem_type" if isinstance(value, float | list) else ""
        raise ConversationError(
            f"expected the number of a class, found {describe(value)}{hint}", where=where
        )
    if not 0 <= value < number:
        raise ConversationError(
            f"is no class: found {value}, expected 0 to {number - 1}; correct it, or num_labels",
            where=where,
        )
    return value


def read_classes(value: Any, where: str, ids: Mapping[str, int], number: int) -> Label:
    """Reads the names of several classes, or a number from 0 to 1 for each class.

    Raises:
        ConversationError: It is neither.
    """
    items = _list(value, where, "a number from 0 to 1 for each class, or a list of names")
    if all(isinstance(item, str) for item in items) and ids:
        chosen = {_id_of(item, f"{where}[{k}]", ids) for k, item in enumerate(items)}
        return [float(k in chosen) for k in range(number)]
    numbers = _numbers(items, where, number)
    for k, share in enumerate(numbers):
        if not 0 <= share <= 1:
            raise ConversationError(
                f"expected a number from 0 to 1, found {share}", where=f"{where}[{k}]"
            )
    return numbers


def read_numbers(value: Any, where: str, ids: Mapping[str, int], number: int) -> Label:
    """Reads the numbers that a regression predicts.

    Raises:
        ConversationError: They are no finite numbers, or too many or too few.
    """
    del ids
    if number == 1 and not isinstance(value, list | tuple):
        return [_number(value, where)]
    return _numbers(_list(value, where, f"a list of {number} numbers"), where, number)


READ_LABEL: Mapping[ProblemType, Callable[[Any, str, Mapping[str, int], int], Label]] = {
    "single_label_classification": read_class,
    "multi_label_classification": read_classes,
    "regression": read_numbers,
}


def _id_of(name: str, where: str, ids: Mapping[str, int]) -> int:
    if name in ids:
        return ids[name]
    known = f"one of {show_all(ids)}" if ids else "a number, since label2id is not set"
    raise ConversationError(
        f"is no known class: found {describe(name)}, expected {known}; correct it, or label2id",
        where=where,
    )


def _list(value: Any, where: str, expected: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ConversationError(f"expected {expected}, found {describe(value)}", where=where)
    return [unwrap(item) for item in value]


def _numbers(items: list[Any], where: str, number: int) -> list[float]:
    found = [_number(item, f"{where}[{k}]") for k, item in enumerate(items)]
    if len(found) != number:
        raise ConversationError(
            f"has {len(found)} numbers, expected {number}, one for each output of the model; "
            "correct it, or num_labels",
            where=where,
        )
    return found


def _number(value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if torch.tensor(float(value)).isfinite():
                return float(value)
        except OverflowError:  # an int beyond all floats
            pass
    raise ConversationError(
        f"expected a finite number that float32 holds, found {describe(value)}", where=where
    )
