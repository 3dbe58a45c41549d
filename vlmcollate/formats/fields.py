"""Reading the fields of rows, messages and parts, and keeping track of those that are not read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from vlmcollate.errors import ConversationError
from vlmcollate.formats.strict_json import RepeatedKeyError, parse_json
from vlmcollate.plain_values import describe, is_missing, show_all, unwrap

FLAGS = ("train", "training", "trainable", "loss", "loss_mask", "train_on_turn", "is_trainable")
WEIGHTS = ("weight", "loss_weight", "loss_scale")
_NUMBERS = frozenset({*FLAGS, *WEIGHTS, "fps", "sampling_rate", "channel_axis"})


def present_fields(value: Mapping[Any, Any]) -> dict[Any, Any]:
    """Drops the fields that a library filled in, such as `None` for the keys that a row lacks.

    NaN stays under the keys that hold a number, so that reading the number refuses it.
    """
    return {
        unwrap(key): item
        for key, item in value.items()
        if not is_missing(item) or (key in _NUMBERS and unwrap(item) is not None)
    }


def is_filler(value: Any) -> bool:
    """Returns whether a value stands where there is no media, such as `""` or Arrow's absent."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return False
    value = unwrap(value)
    if isinstance(value, Mapping):
        return value.keys() <= _PLACES and all(map(is_filler, value.values()))
    return is_missing(value) or value == ""


_PLACES = frozenset({"bytes", "path", "url"})


def is_hollow(value: Any, levels: int = 8) -> bool:
    """Returns whether a value holds nothing but empty lists, dicts, texts and missing values."""
    if not levels:
        return False
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim and len(value):
        return False
    value = unwrap(value)
    if isinstance(value, Mapping):
        return all(is_hollow(item, levels - 1) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_hollow(item, levels - 1) for item in value)
    return is_filler(value)


class Fields:
    """The fields of a row, a message or a part, each of which is read once.

    Args:
        value: The mapping; fields that a library filled in are left out.
        where: Its path in the example, for errors.

    Raises:
        ConversationError: A key is not a string.
    """

    def __init__(self, value: Mapping[Any, Any], where: str) -> None:
        self.where = where
        self._fields = present_fields(value)
        wrong = [key for key in self._fields if not isinstance(key, str)]
        if wrong:
            raise ConversationError(
                f"has keys that are not strings: {show_all(wrong)}; rename them", where=where
            )

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __getitem__(self, key: str) -> Any:
        return self._fields[key]

    def get(self, key: str) -> Any:
        """Returns a field without its array or scalar, or `None`, and leaves it unread."""
        return unwrap(self._fields.get(key))

    def pop(self, key: str) -> Any:
        """Reads a field, without its array or scalar; `None` if it is absent."""
        return unwrap(self._fields.pop(key, None))

    def pop_raw(self, key: str) -> Any:
        """Reads a field as it is."""
        return self._fields.pop(key)

    def named(self, *keys: str) -> list[str]:
        """Returns those of some keys that are present, in the order of the keys."""
        return [key for key in keys if key in self._fields]

    def path(self, key: str) -> str:
        """Returns the path of a field in the example."""
        return f"{self.where}.{key}" if self.where else key

    @property
    def rest(self) -> dict[str, Any]:
        """The fields that were not read."""
        return self._fields


def as_list(value: object, where: str) -> list[Any]:
    """Converts an array, a sequence or a JSON string to a list.

    Args:
        value: A list, a tuple, an array or Series of any library, or JSON of a list.
        where: Its path in the example, for errors.

    Raises:
        ConversationError: It is anything else.
    """
    value = parsed(unwrap(value), where, "[")
    if isinstance(value, list | tuple):
        return list(value)
    raise ConversationError(f"expected a list, found {describe(value)}", where=where)


def parsed(value: Any, where: str, opening: str) -> Any:
    """Parses a string that holds JSON of an expected kind.

    Args:
        value: Any value.
        where: Its path in the example, for errors.
        opening: The characters of which one begins the JSON, such as `"["` for a list.

    Returns:
        The parsed value; any other value unchanged.

    Raises:
        ConversationError: The string begins as JSON of that kind, and is not.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in tuple(opening):
        return value
    try:
        return parse_json(value)
    except RepeatedKeyError as error:
        raise ConversationError(
            f"is ambiguous JSON: {error}; keep one of its values", where=where
        ) from None
    except ValueError as error:
        at = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ConversationError(
            f"is no valid JSON{at}: {problem}; write the string with json.dumps(...), or pass the "
            "value itself",
            where=where,
        ) from None
    except RecursionError:
        raise ConversationError(
            "is JSON that is nested too deeply; flatten it", where=where
        ) from None
