"""The labels of rows: a class, several classes, or numbers to predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from vlmcollate.errors import ConversationError
from vlmcollate.objectives.label_values import id_of, list_of, number_of, numbers_of
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
        return id_of(value, where, ids)
    if isinstance(value, bool) or not isinstance(value, int):
        is_other = isinstance(value, float | list | tuple)
        hint = "for other numbers set problem_type" if is_other else "convert it to an int"
        raise ConversationError(
            f"expected the number of a class, found {describe(value)}; {hint}", where=where
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
    items = list_of(value, where, "a number from 0 to 1 for each class, or a list of names")
    if all(isinstance(item, str) for item in items) and ids:
        chosen = {id_of(item, f"{where}[{k}]", ids) for k, item in enumerate(items)}
        return [float(k in chosen) for k in range(number)]
    numbers = numbers_of(items, where, number)
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
        return [number_of(value, where)]
    return numbers_of(list_of(value, where, f"a list of {number} numbers"), where, number)


READ_LABEL: Mapping[ProblemType, Callable[[Any, str, Mapping[str, int], int], Label]] = {
    "single_label_classification": read_class,
    "multi_label_classification": read_classes,
    "regression": read_numbers,
}
