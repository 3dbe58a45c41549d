"""The options of mixtures."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Literal, get_args

import attrs
import numpy as np

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.mixture.collator import MixtureCollator
from vlmcollate.mixture.schedule import Schedule
from vlmcollate.mixture.shuffling import shuffle_key
from vlmcollate.mixture.source_options import check_known, check_source_options
from vlmcollate.mixture.source_table import Source, as_sources
from vlmcollate.validators import an_instance_of, check_count

Ending = Literal["first_exhausted", "all_exhausted"]


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, np.integer) else value


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
        converter=as_sources, repr=lambda sources: repr({k: s.weight for k, s in sources.items()})
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

    def ends_of(self, names: Container[str], epoch: int = 0) -> list[int]:
        """Returns the draws at which map-style sources start again.

        Args:
            names: The names of the sources, whose weights are above 0.
            epoch: The epoch of the mixture, if each has an order of its own.
        """
        schedule = self.schedule(epoch)
        return [
            schedule.find(number, len(source.dataset))
            for number, (name, source) in enumerate(self.sources.items())
            if name in names
        ]

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
        sources = [  # a list, since their order decides the draws
            [
                name,
                source.weight,
                len(source.dataset) if hasattr(source.dataset, "__len__") else None,
            ]
            for name, source in self.sources.items()
        ]
        return {"seed": self.seed, "shuffle": self.shuffle, "sources": sources}
