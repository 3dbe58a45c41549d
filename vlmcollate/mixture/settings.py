"""The options of mixtures."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, Literal, get_args

import attrs
import numpy as np

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.mixture.collator import MixtureCollator
from vlmcollate.mixture.schedule import Schedule
from vlmcollate.mixture.shuffling import shuffle_key
from vlmcollate.mixture.source_options import check_source_options
from vlmcollate.validators import an_instance_of, check_count

Ending = Literal["first_exhausted", "all_exhausted"]


@attrs.frozen
class Source:
    """A source of a mixture.

    Attributes:
        dataset: A map-style dataset, or a stream.
        weight: Its weight.
    """

    dataset: Any
    weight: float


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


def _as_sources(value: Any) -> Mapping[str, Source]:
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
    if not is_number or not math.isfinite(weight) or weight < 0:
        raise ConfigError(
            f"the weight of source {name!r} is wrong: found {weight!r:.60}, expected a finite "
            "number of at least 0"
        )
    return Source(dataset, float(weight))


def _an_ending(_: object, __: object, value: object) -> None:
    if isinstance(value, str):
        if value not in get_args(Ending):
            raise ConfigError(
                f"samples must be a number or one of {get_args(Ending)}, not {value!r}"
            )
        return
    check_count("samples", value)


def _not_negative(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    check_count(attribute.name, value, least=0)


@attrs.define(eq=False)
class MixtureSettings:
    """The options of `Mixture` and `IterableMixture`, which check their sources themselves."""

    sources: Mapping[str, Source] = attrs.field(
        converter=_as_sources, repr=lambda sources: repr({k: s.weight for k, s in sources.items()})
    )
    seed: int = attrs.field(default=0, converter=_as_int, validator=_not_negative, kw_only=True)
    samples: int | Ending = attrs.field(
        default="first_exhausted", converter=_as_int, validator=_an_ending, kw_only=True
    )
    shuffle: bool = attrs.field(default=True, validator=an_instance_of(bool), kw_only=True)
    per_source: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuses options of unknown sources, and options that hold for a whole batch."""
        bounds = self.schedule().bounds
        for name, low, high in zip(self.names, bounds[:-1], bounds[1:], strict=True):
            if self.sources[name].weight and low == high:
                raise ConfigError(
                    f"the weight of source {name!r} is too small beside the others: found "
                    f"{self.sources[name].weight:g}; raise it, or set it to 0"
                )
        check_known(self.per_source, self.sources)
        for name, options in self.per_source.items():
            check_source_options(options, name)

    @property
    def names(self) -> list[str]:
        """The names of the sources."""
        return list(self.sources)

    @property
    def drawn(self) -> list[str]:
        """The names of the sources with a weight above 0."""
        return [name for name, source in self.sources.items() if source.weight]

    def schedule(self, epoch: int = 0) -> Schedule:
        """Returns the order of the sources in an epoch of the mixture."""
        weights = tuple(source.weight for source in self.sources.values())
        return Schedule(weights, shuffle_key(self.seed, "draws", epoch))

    def end_of(self, name: str, epoch: int = 0) -> int:
        """Returns the draw at which a map-style source starts again.

        Args:
            name: The name of the source, whose weight is above 0.
            epoch: The epoch of the mixture, if each has an order of its own.
        """
        times = len(self.sources[name].dataset)
        return self.schedule(epoch).find(self.names.index(name), times)

    def collator(self, collator: BaseCollator) -> MixtureCollator:
        """Returns a collator of the mixture's rows.

        Args:
            collator: The collator, whose options hold for a source unless `per_source` changes
                them.

        Raises:
            ConfigError: `per_source` holds an unknown or a wrong option.
        """
        return MixtureCollator(
            collator, {name: self.per_source.get(name, {}) for name in self.names}
        )

    def identity(self) -> dict[str, Any]:
        """Returns what decides which row a draw is, by name."""
        sources = {
            name: [
                source.weight,
                len(source.dataset) if hasattr(source.dataset, "__len__") else None,
            ]
            for name, source in self.sources.items()
        }
        return {"seed": self.seed, "shuffle": self.shuffle, "sources": sources}


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


def position_of(state: Any, identity: Mapping[str, Any]) -> int:
    """Returns the position of a state.

    Args:
        state: The state.
        identity: What decides the draws here.

    Raises:
        ConfigError: It is no state, or one of another mixture.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("mixture"), Mapping):
        raise ConfigError(
            f"the state is of no mixture: found {type(state).__name__}, expected a result of "
            "state_dict; pass one"
        )
    for name, here in identity.items():
        there = state["mixture"].get(name)
        if there != here:
            raise ConfigError(
                f"the state is of another mixture: found {name} {there!r}, expected {here!r}; "
                f"resume with the same {name}"
            )
    check_count("the state's position", state.get("position"), least=0)
    return int(state["position"])
