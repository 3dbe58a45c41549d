"""The options that one source of a mixture has of its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.mixture.media_sizes import SIZES, sizes_of

_OF_BATCH = frozenset(
    ("processor", "padding", "shift_labels", "pixels", "counts", "dummy_media", "model_config")
)
"""The options of a collator that hold for all rows of a batch."""


def check_source_options(options: Any, source: str) -> None:
    """Refuses options that no source can have of its own.

    Raises:
        ConfigError: An option holds for a whole batch, or is no size.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"per_source[{source!r}] is wrong: found {options!r:.60}, expected options by name, "
            "such as dict(max_pixels=262144)"
        )
    for name in options:
        if name in _OF_BATCH:
            raise ConfigError(
                f"per_source[{source!r}] sets {name}, which all rows of a batch share; set it in "
                "the collator"
            )
    sizes_of(options, source)


def collator_of(collator: BaseCollator, options: Mapping[str, Any], source: str) -> BaseCollator:
    """Returns a collator with the options of a source.

    Raises:
        ConfigError: An option is unknown or wrong.
    """
    changes = {name: value for name, value in options.items() if name not in SIZES}
    known = {field.name for field in attrs.fields(type(collator)) if field.init} - _OF_BATCH
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(str(name), [*known, *SIZES], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it"
            raise ConfigError(
                f"per_source[{source!r}] sets {name!r}, which is no option of "
                f"{type(collator).__name__}; {hint}"
            )
    try:
        changed: BaseCollator = attrs.evolve(collator, **changes) if changes else collator
    except ConfigError as error:
        raise ConfigError(f"per_source[{source!r}]: {error}") from error
    return changed


def check_known(per_source: Any, names: Iterable[str]) -> None:
    """Refuses options that are not those of known sources by name.

    Raises:
        ConfigError: They are not.
    """
    if not isinstance(per_source, Mapping):
        raise ConfigError(
            f"per_source is wrong: found {per_source!r:.60}, expected the options of sources by "
            'name, such as {"charts": dict(max_pixels=262144)}'
        )
    known = list(names)
    for name in per_source:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"per_source names an unknown source: found {name!r}, expected one of {known}{hint}"
            )
