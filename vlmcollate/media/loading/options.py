"""Converters and validators of the options for loading media."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
from PIL import Image

from vlmcollate.errors import ConfigError
from vlmcollate.media.loading.images import known_formats
from vlmcollate.plain_values import show


def above_zero(_: object, option: attrs.Attribute[Any], value: object) -> None:
    """Refuses anything but a number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"{option.name} must be a number above 0, not {show(value)}")


def as_range(value: Any) -> Any:
    """Converts a list of two numbers to a tuple."""
    return tuple(value) if isinstance(value, list) else value


def a_range_or_none(_: object, option: attrs.Attribute[Any], value: Any) -> None:
    """Refuses anything but two rising numbers or `None`."""
    if value is None:
        return
    is_pair = isinstance(value, tuple) and len(value) == 2
    if not is_pair or not all(type(v) in (int, float) and math.isfinite(v) for v in value):
        raise ConfigError(
            f"{option.name} must be None or the values of black and white, not {show(value)}"
        )
    if not value[0] < value[1]:
        raise ConfigError(
            f"{option.name} must hold the value of black and then a higher one of white, not "
            f"{show(value)}"
        )


def a_colour(_: object, option: attrs.Attribute[Any], value: Any) -> None:
    """Refuses anything but an opaque colour that Pillow knows."""
    try:
        Image.new("RGB", (1, 1), value)
        is_opaque = value is not None and (isinstance(value, str) or len(value) == 3)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{option.name} {value!r} is not a colour ({error})") from error
    if not is_opaque:
        raise ConfigError(f"{option.name} must be a colour such as 'white', not {value!r}")


def as_formats(value: Iterable[str]) -> tuple[str, ...]:
    """Converts the names of image formats to a tuple in upper case."""
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ConfigError(
            f"formats must be a tuple of names such as ('JPEG', 'PNG'), not {value!r}"
        )
    return tuple(name.upper() for name in value)


def known_to_pillow(_: object, option: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    """Refuses an empty tuple and the names of formats that Pillow cannot open."""
    if not value:
        raise ConfigError(f"{option.name} is empty; name at least one, such as 'PNG'")
    unknown = sorted(set(value) - known_formats())
    if unknown:
        raise ConfigError(
            f"{option.name} holds {unknown}, which this Pillow cannot open; it knows "
            f"{', '.join(sorted(known_formats()))}"
        )


def as_folder(value: str | os.PathLike[str] | None) -> Path | None:
    """Converts the root folder to a path."""
    if value is None or isinstance(value, str | os.PathLike):
        return None if value is None else Path(value)
    raise ConfigError(f"root must be a folder or None, not {value!r}")


def a_folder_or_none(_: object, option: attrs.Attribute[Any], value: Path | None) -> None:
    """Refuses the path of anything but an existing folder."""
    if value is not None and not value.is_dir():
        raise ConfigError(f"{option.name} '{value}' is not a folder; create it or correct the path")


def as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Converts one name or several to a tuple.

    Raises:
        ConfigError: It is neither.
    """
    given: Any = value
    if isinstance(given, bytes) or not isinstance(given, str | Iterable):
        raise ConfigError(f"names are wrong: found {show(given)}, expected a string or several")
    return (given,) if isinstance(given, str) else tuple(given)
