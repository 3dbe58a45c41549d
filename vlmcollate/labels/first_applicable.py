"""The first of several strategies that can place every turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import attrs

from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy
from vlmcollate.prompt.encoder import EncodedPrompt, Turn

T = TypeVar("T")


def _check(_: object, __: object, value: tuple[LabelStrategy, ...]) -> None:
    if not value or not all(isinstance(item, LabelStrategy) for item in value):
        raise ConfigError(f"expected one or more label strategies, found {value!r}")


def _as_tuple(value: Iterable[LabelStrategy]) -> tuple[LabelStrategy, ...]:
    return tuple(value)


@attrs.frozen
class FirstApplicable(LabelStrategy):
    """Tries strategies in order; `EncodedSample.label_strategy` says which one served.

    Args:
        strategies: At least one, the preferred first.
    """

    strategies: tuple[LabelStrategy, ...] = attrs.field(converter=_as_tuple, validator=_check)

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """See `LabelStrategy`."""
        return self.first_of(lambda strategy: strategy.find_turns(prompt, context))

    def first_of(self, place: Callable[[LabelStrategy], T]) -> T:
        """Returns the result of the first strategy that can place every turn.

        Args:
            place: Runs one strategy.

        Raises:
            LabelError: No strategy can; the message holds the reason of each.
        """
        reasons = []
        for strategy in self.strategies:
            try:
                return place(strategy)
            except LabelError as error:
                reasons.append(f"{type(strategy).__name__}: {error}")
        raise LabelError("no strategy can place the turns; " + "; ".join(reasons))
