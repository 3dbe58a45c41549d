"""The sources of a mixture with their weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import attrs

from vlmcollate.errors import ConfigError


@attrs.frozen
class Source:
    """A source of a mixture.

    Attributes:
        dataset: A map-style dataset, or a stream.
        weight: Its weight.
    """

    dataset: Any
    weight: float


def as_sources(value: Any) -> Mapping[str, Source]:
    """Converts datasets and weights by name.

    Raises:
        ConfigError: A name or a weight is wrong, or all weights are 0.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"sources is wrong: found {value!r:.60}, expected (dataset, weight) by name, such as "
            '{"charts": (charts, 0.3), "chat": (chat, 0.7)}'
        )
    found = {name: _as_source(name, given) for name, given in value.items()}
    if not any(source.weight for source in found.values()):
        raise ConfigError("the weights of the sources sum to 0; give one of them a weight above 0")
    return found


def _as_source(name: object, given: Any) -> Source:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"the name of a source is wrong: found {name!r:.60}, expected a string")
    if isinstance(given, Source):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ConfigError(
            f"source {name!r} is wrong: found {type(given).__name__}, expected (dataset, weight)"
        )
    dataset, weight = given
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= sys.float_info.max:
        raise ConfigError(
            f"the weight of source {name!r} is wrong: found {weight!r:.60}, expected a finite "
            "number of at least 0"
        )
    return Source(dataset, float(weight))
