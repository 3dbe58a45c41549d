"""Removes blocks of reasoning without words from answers."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vlmcollate.conversation import Conversation
from vlmcollate.prompt.answer_parts import empty_reasoning, without
from vlmcollate.prompt.notes import TurnNote, merged
from vlmcollate.prompt.reasoning import ReasoningForm
from vlmcollate.prompt.rendering import Rendering


def without_empty_reasoning(
    rendering: Rendering, conversation: Conversation, forms: Sequence[ReasoningForm]
) -> Rendering:
    """Returns a rendering without the blocks of reasoning without words in its turns.

    A block may begin in the generation prompt. A turn that loses the end of its prompt is noted.

    Args:
        rendering: The rendering.
        conversation: The conversation, whose last turn may be among those.
        forms: How reasoning may be written.
    """
    blocks = empty_reasoning(rendering, forms)
    if not blocks:
        return rendering
    starts = {turn.message: turn.start for turn in reversed(rendering.turns)}
    lost: dict[int, TurnNote] = {}
    for block in blocks:
        opening = rendering.text[block.start : starts[block.message]].strip()
        if opening:
            lost[block.message] = TurnNote("off_prompt", opening[:40], is_dropped=True)
    found = without(rendering, blocks)
    if not lost:
        return found
    others = (n.among({*n.messages} - lost.keys()) if n.messages else n for n in found.notes)
    kept = [note for note in others if note is not None]
    return attrs.evolve(found, notes=(*kept, *merged(lost, _last_turn(conversation))))


def _last_turn(conversation: Conversation) -> int:
    """Returns the last turn of a chat; -1 if a question follows it."""
    for k, message in reversed([*enumerate(conversation.messages)]):
        if message.role == "user":
            break
        if message.is_assistant and not message.is_prefix:
            return k
    return -1
