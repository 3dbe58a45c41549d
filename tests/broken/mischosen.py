"""Collators that choose wrongly among what trains, each in one way."""

from __future__ import annotations

from typing import Any

import attrs

from tests.broken.misquoted import WithTools
from vlmcollate import EncodedSample, PartWeights


@attrs.frozen(kw_only=True, eq=False)
class AlwaysClosesReasoning(WithTools):
    """Trains what closes the reasoning, whatever its weight."""

    def _with_labels(self, *arguments: Any) -> EncodedSample:
        chosen = self.train_on
        if isinstance(chosen, PartWeights) and chosen.reasoning_end != 1:
            closing = attrs.evolve(self, train_on=attrs.evolve(chosen, reasoning_end=1.0))
            return closing._with_labels(*arguments)
        return super()._with_labels(*arguments)


@attrs.frozen(kw_only=True, eq=False)
class ShowsLaterTurns(WithTools):
    """Splits a chat into samples that each hold all of it."""

    def encode_all(self, example: object) -> list[EncodedSample]:  # type: ignore[misc]  # final
        whole = attrs.evolve(self, split_turns=False).encode(example)
        return [whole] * len(super().encode_all(example))


CAUGHT_BY: dict[type[Any], str] = {
    AlwaysClosesReasoning: "check_parts_make_up_answers",
    ShowsLaterTurns: "check_split_turns_are_chats_of_their_own",
}
