"""The formats that are known by name."""

from __future__ import annotations

import difflib

from vlmcollate.errors import ConfigError
from vlmcollate.formats.base import DatasetFormat
from vlmcollate.formats.builtin import FORMATS

REGISTERED: dict[str, DatasetFormat] = {known.name: known for known in FORMATS}


def register_format(added: DatasetFormat) -> None:
    """Adds a format, which `format="auto"` tries after the others, or replaces one of its name.

    Raises:
        ConfigError: It is no instance of a format.
    """
    if not isinstance(added, DatasetFormat):
        raise ConfigError(f"expected a DatasetFormat, called with its options; found {added!r:.80}")
    REGISTERED[added.name] = added


def format_of(format: str | DatasetFormat) -> DatasetFormat | None:  # noqa: A002  # the option
    """Returns a format by its name, or `None` for `"auto"`.

    Raises:
        ConfigError: No format has the name.
    """
    if isinstance(format, DatasetFormat):
        return format
    if format == "auto":
        return None
    if isinstance(format, str) and format in REGISTERED:
        return REGISTERED[format]
    if isinstance(format, type) and issubclass(format, DatasetFormat):
        raise ConfigError(
            f"format is the class {format.__name__}; call it with its options: {format.__name__}()"
        )
    names = ["auto", *REGISTERED]
    near = difflib.get_close_matches(str(format), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"format is wrong: found {format!r:.60}, expected one of {names}{hint}")
