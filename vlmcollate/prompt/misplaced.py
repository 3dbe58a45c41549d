"""Finds messages that a chat template moves, repeats or reverses, to name them in errors."""

from __future__ import annotations

from vlmcollate.conversation import Conversation, TextPart
from vlmcollate.prompt.marks import MarkedText
from vlmcollate.prompt.turn_headers import GLOBAL_ROLES


def misplacement(trace: MarkedText) -> str:
    """Returns which message a template writes behind a later one or twice, and the way on.

    Args:
        trace: The marked prompt.

    Returns:
        A clause, or "" if every message stands once and in its place.
    """
    first: dict[int, int] = {}
    reached = -1
    messages = trace.marks.conversation.messages
    for slot in trace.slots:
        if slot.message < 0 or messages[slot.message].role in GLOBAL_ROLES:
            continue
        known = trace.find(slot.number)
        if known is not slot and reached > slot.message:
            return _clause(f"messages[{slot.message}] again behind messages[{reached}]")
        if slot.message not in first and reached > slot.message:
            return _clause(f"messages[{slot.message}] behind messages[{reached}]")
        first.setdefault(slot.message, slot.start)
        reached = max(reached, slot.message)
    return ""


def _clause(found: str) -> str:
    return (
        f"the template writes {found}; use a chat template that writes each message once and in "
        "its place, or make a row of each question and its answer"
    )


def reversed_message(conversation: Conversation, plain: str) -> int | None:
    """Returns the first message whose text a template writes backwards, or `None`.

    Args:
        conversation: The conversation.
        plain: Its prompt.
    """
    for k, message in enumerate(conversation.messages):
        for part in message.content:
            text = part.text.strip() if isinstance(part, TextPart) else ""
            if len(text) > 1 and text not in plain and text[::-1] in plain:
                return k
    return None
