"""Validators of options, and of classes that have options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from types import MemberDescriptorType
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.errors import ConfigError


def one_of(*values: str | None) -> Any:
    """Returns a validator that refuses any other value."""

    def check(_: object, attribute: attrs.Attribute[str], value: object) -> None:
        if value not in values:
            raise ConfigError(f"{attribute.name} must be one of {values}, not {value!r}")

    return check


def an_instance_of(kind: type) -> Any:
    """Returns a validator that refuses a value of another type."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise ConfigError(
                f"{attribute.name} must be a {kind.__name__}, such as a built-in one called with "
                f"its options; found {value!r:.80}"
            )

    return check


def a_folder(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuses a value that is no path."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(
            f"{attribute.name} must be the path of a folder, such as 'data/images', not "
            f"{value!r:.80}"
        )


def a_model_config(_: object, __: object, value: object) -> None:
    """Refuses a value that is no model configuration."""
    if not (callable(getattr(value, "get_text_config", None)) and hasattr(value, "model_type")):
        raise ConfigError(
            f"model_config is wrong: found {value!r:.80}, expected a PreTrainedConfig of "
            "transformers; set it to model.config, or to AutoConfig.from_pretrained(...)"
        )


def max_length(_: object, __: object, value: int | None) -> None:
    """Refuses a value that is no number of tokens."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"max_length must be an integer of at least 1, or None, not {value!r}")


def at_least_one(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuses a value that is no integer of at least 1."""
    check_count(attribute.name, value)


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Refuses a value that is no integer, or too small."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:  # type: ignore[operator]  # a number, as just found
        raise ConfigError(f"{name} must be an integer of at least {least}, not {value!r}")


def token_strings(_: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """Refuses a value that is no tuple of tokens."""
    if not all(isinstance(token, str) and token for token in value):
        raise ConfigError(f"{attribute.name} must be non-empty strings, found {value!r}")


def as_strings(value: str | Sequence[str]) -> tuple[str, ...]:
    """Returns one or several strings as a tuple, of which `token_strings` refuses other values."""
    given: Any = value
    is_one = isinstance(given, str) or not isinstance(given, Iterable)
    return (given,) if is_one else tuple(given)


def whole_numbers(name: str, value: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Converts numbers to (N,) int64; refuses fractions, which NumPy would truncate."""
    try:
        found = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise ConfigError(f"{name} must hold one whole number per sample: {error}") from error
    if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
        raise ConfigError(
            f"{name} must hold one whole number per sample, not {found.dtype} of shape "
            f"{found.shape}"
        )
    if len(found) and found.max() > np.iinfo(np.int64).max:
        raise ConfigError(f"{name} must fit into int64, found {found.max()}")
    return found.astype(np.int64)


_FIELD = type(attrs.field())


class WithOptions:
    """The base of a class hierarchy whose options are attrs fields.

    A subclass whose options attrs does not know, or whose new defaults it ignores, is refused.
    """

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses a new default that is no field, whether the class is decorated or not."""
        super().__init_subclass__(**options)
        own = set(_declared(cls))
        for name in _fields(cls.__mro__[1:]):
            value = vars(cls).get(name)
            if (
                name in vars(cls)
                and name not in own
                and not isinstance(value, MemberDescriptorType)
            ):
                raise _ignored(cls, name)

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Refuses a class whose options would be lost."""
        check_decorated(cls)
        return super().__new__(cls)


def check_decorated(cls: type) -> None:
    """Refuses a class that declares options without the attrs decorator.

    Raises:
        ConfigError: An option would be lost.
    """
    for position, kind in enumerate(cls.__mro__[: cls.__mro__.index(WithOptions)]):
        if "__attrs_attrs__" in vars(kind) or "__init__" in vars(kind):
            continue  # the latter is a dataclass, or a class that is no value
        inherited = set(_fields(cls.__mro__[position + 1 :]))
        for name in _declared(kind):
            if name in inherited:
                raise _ignored(kind, name)
            raise ConfigError(
                f"{kind.__name__} adds the option {name!r} without the attrs decorator; put "
                f"{_decorator(kind)} above the class, or annotate a constant as ClassVar"
            )


def _ignored(cls: type, name: str) -> ConfigError:
    return ConfigError(
        f"{cls.__name__} sets the option {name!r} in its class body, where attrs ignores it; pass "
        f"{name}=... when you instantiate the class, or declare the new default as a field, "
        f"`{name}: ... = ...` under {_decorator(cls)}"
    )


def _fields(kinds: Sequence[type]) -> Iterator[str]:
    """Yields the names of the options of some classes."""
    for kind in kinds:
        yield from (field.name for field in vars(kind).get("__attrs_attrs__", ()))


def _declared(cls: type) -> list[str]:
    """Returns the names in a class body that attrs would make options."""
    fields = [name for name, value in vars(cls).items() if isinstance(value, _FIELD)]
    annotated = [
        name
        for name, kind in vars(cls).get("__annotations__", {}).items()
        if not str(kind).removeprefix("typing.").startswith(("ClassVar", "t.ClassVar"))
    ]
    return list(dict.fromkeys([*annotated, *fields]))


def _decorator(cls: type) -> str:
    compares = any("__eq__" in vars(kind) for kind in cls.__mro__[:-1])
    return "@attrs.frozen(kw_only=True)" if compares else "@attrs.frozen(kw_only=True, eq=False)"
