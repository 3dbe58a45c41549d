"""Converts the values of pandas, NumPy, Arrow and PyTorch in a row to plain Python.

`pandas.read_parquet(...).to_dict("records")` holds lists as object arrays, a dataset with a format
holds scalars and arrays of that library, and both add the keys that a row lacks. A conversation
holds strings, numbers, lists and dicts. Values of pandas and Arrow are recognised by the module of
their type, so that neither library has to be installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from vlmcollate.errors import ConversationError

MAX_LEVELS = 64
"""The maximum depth of nesting; JSON schemas have a dozen levels, Python allows about 300."""
_MAX_BITS = 10_000  # of an integer; Python prints at most 4,300 digits
_MAX_INT = 2**63


def unwrap(value: Any) -> Any:
    """Converts the outermost level of a value to plain Python.

    Args:
        value: Any value of a row.

    Returns:
        A list for an array, a Series or an Arrow list; a dict for a Series with named entries; a
        plain scalar for a scalar; `None` for the missing values of these libraries, except a
        float's NaN; anything else unchanged.
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # `str` of a member of an enum is the member's name
    if isinstance(value, np.generic):
        return _unwrap_numpy(value)
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else unwrap(value[()])
    if isinstance(value, torch.Tensor):
        return value.tolist()
    library = _library_of(value)
    if library == "pandas":
        return _unwrap_pandas(value)
    if library == "pyarrow":
        return _unwrap_arrow(value)
    if isinstance(value, int):
        return int.__index__(value)
    return float.__float__(value) if isinstance(value, float) else value


def is_missing(value: Any) -> bool:
    """Returns whether a library filled in a missing key; NaN counts too."""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if type(value).__name__ in ("NAType", "NaTType"):
        return _library_of(value) == "pandas"
    is_scalar = _library_of(value) == "pyarrow" and hasattr(value, "as_py")
    return value is None or (is_scalar and value.as_py() is None)


def plain(value: Any, where: str, *, allow_dates: bool = False, keep_missing: bool = False) -> Any:
    """Copies a JSON-like value to plain Python, without missing values.

    Dataclasses, attrs classes and models with `model_dump` are copied as dicts of their fields.
    Other objects are refused, since a template would write their text unchecked.

    Args:
        value: The value of a template variable, a tool or a tool call.
        where: Its path in the example, for errors.
        allow_dates: Whether to allow dates, decimals and NaN, as in a row's notes about a message.
        keep_missing: Whether to keep keys whose value is `None`.

    Returns:
        The copy: strings, numbers, bools, `None`, lists and dicts.

    Raises:
        ConversationError: The value contains itself, is nested too deeply, or holds an object, a
            key, a number or a string that JSON cannot hold.
    """
    try:
        return copy_builtins(value)
    except NotBuiltinError:
        return _Copy(where, allow_dates=allow_dates, keep_missing=keep_missing)(value)


class NotBuiltinError(Exception):
    """A value is not only of the built-in types that JSON holds, or holds `None`."""


def copy_builtins(value: Any, levels: int = 16) -> Any:
    """Copies a value of strings, numbers, lists and dicts, as `plain` does, in less time.

    Args:
        value: The value.
        levels: The maximum depth of nesting.

    Raises:
        NotBuiltinError: The value holds anything else, which `plain` copies or refuses.
    """
    kind = type(value)
    if kind is str and is_encodable(value):
        return value
    if kind is bool or (kind is int and -_MAX_INT <= value <= _MAX_INT):
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list and levels:
        return [copy_builtins(item, levels - 1) for item in value]
    if kind is dict and levels and all(map(is_encodable, value)):
        return {key: copy_builtins(item, levels - 1) for key, item in value.items()}
    raise NotBuiltinError


def is_encodable(value: object) -> bool:
    """Returns whether a value is an exact `str` that a tokenizer can encode."""
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_source(value: Any, where: str) -> Any:
    """Copies a media source to plain Python, except arrays, images and bytes.

    Args:
        value: The value under `"image"`, `"video"` or `"audio"`.
        where: Its path in the example, for errors.

    Returns:
        The copy, which refers to the caller's arrays, images and bytes.

    Raises:
        ConversationError: The value contains itself or is nested too deeply.
    """
    return _Copy(where, is_source=True)(value)


def fields_of(value: Any) -> Any:
    """Converts dataclasses, attrs classes and models to dicts of their fields.

    Returns:
        The dict; any other value unchanged.
    """
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif attrs.has(kind):
        names = [field.name for field in attrs.fields(kind)]
    elif callable(getattr(kind, "model_dump", None)):
        with contextlib.suppress(Exception):  # if the caller's code fails, the object is kept
            return value.model_dump()
        return value
    else:
        return value
    return {name: getattr(value, name, None) for name in names}


def plain_text(text: str, where: str) -> str:
    """Converts a text to an exact `str`.

    Args:
        text: The text, of `str` or a subclass.
        where: Its path in the example, for errors.

    Raises:
        ConversationError: The text holds a lone surrogate.
    """
    text = str.__str__(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConversationError(
            f"holds a lone surrogate at character {error.start}, which no tokenizer can encode; "
            'replace it with text.encode("utf-8", "replace").decode()',
            where=where,
        ) from None
    return text


def describe(value: Any) -> str:
    """Describes a value for an error, by its type and its beginning."""
    return "nothing" if value is None else f"{type(value).__name__} {show(value):.60}"


def show(value: Any) -> str:
    """Returns the beginning of the `repr` of any value."""
    return _SHOWN.repr(value)


def show_all(values: Iterable[Any]) -> str:
    """Returns values of any type, such as the keys of a dict, as sorted text."""
    return f"[{', '.join(sorted(map(show, values)))}]"


class _Copy:
    """Copies one value, and keeps track of the containers around it."""

    def __init__(
        self,
        where: str,
        *,
        is_source: bool = False,
        allow_dates: bool = False,
        keep_missing: bool = False,
    ) -> None:
        self.where = where
        self.is_source = is_source
        self.allow_dates = allow_dates
        self.keep_missing = keep_missing
        self._inside: set[int] = set()
        self._path: list[str] = []

    def __call__(self, value: Any) -> Any:
        if self.is_source and _library_of(value) == "pandas" and hasattr(value, "to_numpy"):
            value = value.to_numpy()
        if self.is_source and _is_array_of_numbers(value):
            return value
        found = unwrap(value)
        if not self.is_source and type(found) not in _PLAIN:
            found = fields_of(found)
        if isinstance(found, Mapping):
            return self._inside_of(value, self._mapping, found)
        if isinstance(found, list | tuple):
            return self._inside_of(value, self._list, found)
        if isinstance(found, str) and not self.is_source:
            return plain_text(found, self.where)
        if type(found) is int and found.bit_length() > _MAX_BITS:
            raise ConversationError(
                f"holds {show(found)}, expected at most {_MAX_BITS}; pass it as a string",
                where=self.where,
            )
        if not self.is_source:
            self._check_scalar(found)
        return found

    def _check_scalar(self, value: Any) -> None:
        where = self.where + "".join(self._path)
        if type(value) is float:
            if not math.isfinite(value) and not self.allow_dates:
                raise ConversationError(
                    f"found {value}, which JSON cannot hold; expected a finite number: replace "
                    "it, or remove it",
                    where=where,
                )
        elif value is not None and type(value) not in (bool, int):
            if self.allow_dates and type(value) in _DATES:
                return
            raise ConversationError(
                f"found {describe(value)}; expected a string, a number, a bool, a list or a dict: "
                "convert it to one of these",
                where=where,
            )

    def _inside_of(self, container: Any, copy: Callable[[Any], Any], value: Any) -> Any:
        if id(container) in self._inside:
            raise ConversationError(
                f"holds a {type(container).__name__} that contains itself; expected a tree of "
                "values, as in JSON",
                where=self.where,
            )
        if len(self._inside) >= MAX_LEVELS:
            raise ConversationError(
                f"is nested more than {MAX_LEVELS} levels deep; flatten it", where=self.where
            )
        self._inside.add(id(container))
        copied = copy(value)
        self._inside.remove(id(container))
        return copied

    def _list(self, items: Sequence[Any]) -> Sequence[Any]:
        copied = [self._at(f"[{i}]", item) for i, item in enumerate(items)]
        is_tuple = self.is_source and isinstance(items, tuple)  # (array, rate)
        return tuple(copied) if is_tuple else copied

    def _mapping(self, value: Mapping[Any, Any]) -> dict[Any, Any]:
        if self.is_source:
            return {unwrap(key): self(item) for key, item in value.items()}
        copied = ((self._key(k), self._at(_step(k), item)) for k, item in value.items())
        return {key: item for key, item in copied if self.keep_missing or item is not None}

    def _at(self, step: str, item: Any) -> Any:
        self._path.append(step)
        copied = self(item)
        self._path.pop()
        return copied

    def _key(self, key: Any) -> Any:
        key = unwrap(key)
        if not isinstance(key, str | int | float):
            raise ConversationError(
                f"holds the key {show(key)}; expected a string, as in JSON", where=self.where
            )
        return self(key)


def _step(key: Any) -> str:
    is_name = isinstance(key, str) and key.isidentifier()
    return f".{key:.60}" if is_name else f"[{show(key)}]"


def _library_of(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _unwrap_numpy(value: np.generic) -> Any:
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        if np.isnat(value):
            return None
        if isinstance(value, np.datetime64):
            return value.astype("datetime64[us]").item()  # nanoseconds would be a bare integer
        return value.astype("timedelta64[us]").item()
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    return bytes(value) if isinstance(value, np.bytes_) else value


def _unwrap_pandas(value: Any) -> Any:
    name = type(value).__name__
    if name in ("NAType", "NaTType"):
        return None
    if name == "Timestamp":
        return value.to_pydatetime(warn=False)
    if name == "Timedelta":
        return value.to_pytimedelta()
    if name == "Series" and len(value) and all(isinstance(key, str) for key in value.index):
        return dict(value.items())  # a row of `iterrows`
    if name == "DataFrame" or not hasattr(value, "tolist"):
        return value
    return value.tolist()


def _unwrap_arrow(value: Any) -> Any:
    if hasattr(value, "as_py"):
        return value.as_py()
    is_table = hasattr(value, "column_names")
    return value.to_pylist() if hasattr(value, "to_pylist") and not is_table else value


def _is_array_of_numbers(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc"
    return isinstance(value, torch.Tensor)


class _Shown(reprlib.Repr):
    """A `repr` that stops early, and that works for integers of any size."""

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() > 1000:
            return f"an integer of {value.bit_length()} bits"
        return super().repr_int(value, level)


_PLAIN = frozenset({str, bytes, int, float, bool, list, tuple, dict})
_DATES = frozenset(
    {datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal}
)
_SHOWN = _Shown()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60
