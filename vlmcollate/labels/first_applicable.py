"""The first of several strategies that can place every turn."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.labels.base import LabelContext, LabelStrategy
from vlmcollate.prompt.encoder import EncodedPrompt, Turn


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

    def __call__(self, prompt: EncodedPrompt, context: LabelContext) -> list[Turn]:
        """See `LabelStrategy`."""
        return self.serving(prompt, context)[1]

    def serving(self, prompt: EncodedPrompt, context: LabelContext) -> tuple[str, list[Turn]]:
        """The turns of the first strategy that does not refuse, and its name.

        Raises:
            LabelError: All of them refuse; the message gives each one's reason.
        """
        reasons = []
        for strategy in self.strategies:
            try:
                return strategy.serving(prompt, context)
            except LabelError as error:
                reasons.append(f"{type(strategy).__name__}: {error}")
        raise LabelError("no strategy can place the turns; " + "; ".join(reasons))
