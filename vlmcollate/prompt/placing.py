"""Adds the assistant turns to a rendering, or the reason why they are unknown."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs

from vlmcollate.errors import LabelError
from vlmcollate.prompt.notes import merged
from vlmcollate.prompt.off_prompt_advice import advised
from vlmcollate.prompt.rendering import Rendering, UncertainTurns
from vlmcollate.prompt.turn_headers import OffPromptError
from vlmcollate.prompt.turns import TurnFinder


def with_turns(rendering: Rendering, finder: TurnFinder, template: str) -> Rendering:
    """Returns a rendering with the turns that a finder finds in it.

    If some begin or end at an unknown place, the rendering has an error, and turns that hold if
    those do not train.

    Args:
        rendering: The rendering without turns.
        finder: The finder of its turns.
        template: The chat template.
    """
    try:
        turns = tuple(finder())
    except LabelError as error:
        return attrs.evolve(rendering, turn_error=_first_error(finder, template) or error)
    notes = merged(finder.notes, finder.last_turn)
    if not finder.uncertain:
        return attrs.evolve(rendering, turns=turns, notes=notes)
    uncertain = UncertainTurns(turns, frozenset(finder.uncertain))
    reason = _first_error(finder, template)
    return attrs.evolve(rendering, turn_error=reason, uncertain=uncertain, notes=notes)


def _first_error(finder: TurnFinder, template: str) -> LabelError | None:
    """Returns the error of the first turn that is uncertain, with what serves it."""
    messages = finder.conversation.messages
    weights = {k: messages[k].weight for k in finder.uncertain}
    k = next(iter(filter(weights.get, weights)), next(iter(weights), None))
    if k is None:
        return None
    error = finder.uncertain[k]
    if isinstance(error, OffPromptError) and weights[k]:
        return advised(error, k, finder, template)
    return error


def without_untrained_errors(
    rendering: Rendering, trained: Callable[[list[int]], Collection[int]]
) -> Rendering:
    """Returns a rendering with its turns if none that is uncertain trains.

    Args:
        rendering: The rendering.
        trained: A function that returns those of the messages of turns, in order, that train.
    """
    found = rendering.uncertain
    if found is None:
        return rendering
    answers = [*dict.fromkeys(turn.message for turn in found.turns)]
    if not found.messages.isdisjoint(trained(answers)):
        return rendering
    return attrs.evolve(rendering, turns=found.turns, turn_error=None, uncertain=None)
