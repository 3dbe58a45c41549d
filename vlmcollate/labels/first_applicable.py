"""Labels by the first of several strategies that can locate every turn."""

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
    """Tries strategies in order; `EncodedSample.label_strategy` names the one that succeeded.

    Args:
        strategies: At least one strategy, in order of preference.
    """

    strategies: tuple[LabelStrategy, ...] = attrs.field(converter=_as_tuple, validator=_check)

    def find_turns(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """Finds the assistant turns; see `LabelStrategy`."""
        return self.first_of(lambda strategy: strategy.find_turns(prompt, context))

    def first_of(self, place: Callable[[LabelStrategy], T]) -> T:
        """Returns the result of the first strategy that can locate every turn.

        Args:
            place: The function that runs one strategy.

        Raises:
            LabelError: Every strategy failed; the message contains the reason for each.
        """
        reasons = []
        for strategy in self.strategies:
            try:
                return place(strategy)
            except LabelError as error:
                reasons.append(f"{type(strategy).__name__}: {error}")
        raise LabelError("no strategy can locate the turns; " + "; ".join(reasons))
