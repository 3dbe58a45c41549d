"""What makes a turn agree with its generation prompt, for the error that refuses it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.errors import SampleError
from vlmcollate.prompt.marks import REASONING_KEYS
from vlmcollate.prompt.misplaced import misplacement
from vlmcollate.prompt.template_syntax import switches_of, variables_of
from vlmcollate.prompt.turn_headers import OffPromptError
from vlmcollate.prompt.turns import TurnFinder

_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
_ROLES = "check whether roles are swapped"
_TEMPLATE = "use a chat template whose turns and prompt agree"


def advised(error: OffPromptError, k: int, finder: TurnFinder, template: str) -> OffPromptError:
    """Returns the error of a turn with all that serves it.

    Args:
        error: The error, whose message states what was found.
        k: The turn.
        finder: The finder of its turns.
        template: The chat template.
    """
    served = [*_with_reasoning(k, finder, template), *_with_a_variable(k, finder, template)]
    if served or _THOUGHT.search(error.problem):
        served.append(_TEMPLATE)
    hint = " or ".join(filter(None, (", ".join(served[:-1]), *served[-1:])))
    hint = hint or misplacement(finder.trace) or _ROLES
    return OffPromptError(f"{error.problem}; {hint}", where=error.where)


def _with_reasoning(k: int, finder: TurnFinder, template: str) -> Iterator[str]:
    """Yields the key of reasoning with which a turn without any agrees with its prompt."""
    messages = finder.conversation.messages
    if not {*REASONING_KEYS}.isdisjoint(messages[k].extra):
        return
    for key in REASONING_KEYS:
        thinking = attrs.evolve(messages[k], extra={**messages[k].extra, key: "quokka"})
        changed = (*messages[:k], thinking, *messages[k + 1 :])
        if key in template and _agrees(k, finder, messages=changed):
            yield f"give the answer its reasoning as {key!r}"
            return


def _with_a_variable(k: int, finder: TurnFinder, template: str) -> Iterator[str]:
    """Yields the first template variable with which a turn agrees with its prompt."""
    own = finder.conversation.template_kwargs
    for variables in (*switches_of(template), *_other_switches(template)):
        if _agrees(k, finder, template_kwargs={**own, **variables}):
            is_own = not own.keys().isdisjoint(variables)  # which overrides the collator's
            yield f"set {'chat_' * is_own}template_kwargs={dict(variables)!r}"
            return


def _other_switches(template: str) -> Iterator[Mapping[str, Any]]:
    """Yields values of the variables of a template that may be switches for thinking."""
    known = {name for variables in switches_of(template) for name in variables}
    for name in sorted(variables_of(template) - known):
        if _THOUGHT.search(name):
            yield from ({name: value} for value in ((0,) if "budget" in name else (False, True)))


def _agrees(k: int, finder: TurnFinder, **changes: Any) -> bool:
    """Returns whether a turn of a changed conversation begins with its whole prompt."""
    conversation: Conversation = attrs.evolve(finder.conversation, **changes)
    try:
        other = finder.of_another(conversation)
        turns = [*other()] if other else []
    except SampleError:
        return False
    if other is None:
        return False
    is_found = any(turn.message == k for turn in turns) and k not in other.uncertain
    return is_found and (k not in other.notes or other.notes[k].kind == "in_parts")
