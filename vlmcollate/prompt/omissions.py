"""The strings of a conversation that a chat template omitted or changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from vlmcollate.conversation import Conversation
from vlmcollate.prompt.marks import MarkedText


def dropped_strings(conversation: Conversation, trace: MarkedText, no_tools: bool) -> Iterator[str]:  # noqa: FBT001
    """Yields the paths of the strings that the template omitted.

    Args:
        conversation: The conversation.
        trace: Its traced rendering.
        no_tools: Whether the prompt is the same without the tools.
    """
    written = {slot.number for slot in trace.slots}
    places = enumerate(trace.marks.places)
    yield from dict.fromkeys(p.where for n, p in places if p.message >= 0 and n not in written)
    for i, tool in enumerate(conversation.tools or ()):
        name = tool.get("function", tool).get("name") if isinstance(tool, Mapping) else None
        if no_tools or (isinstance(name, str) and name not in trace.text):
            yield f"tools[{i}]"


def names_tools(conversation: Conversation, trace: MarkedText) -> bool:
    """Returns whether the template's own text holds the names of all tools."""
    ends = [0, *(slot.end for slot in trace.slots)]
    starts = [*(slot.start for slot in trace.slots), len(trace.text)]
    own = "\0".join(trace.text[a:b] for a, b in zip(ends, starts, strict=True))
    tools = [t.get("function", t) for t in conversation.tools or () if isinstance(t, Mapping)]
    names = [tool.get("name") for tool in tools if isinstance(tool, Mapping)]
    return bool(names) and all(isinstance(name, str) and name in own for name in names)


def altered_strings(trace: MarkedText) -> Iterator[str]:
    """Yields the paths of the strings that the template changed, or wrote more than once."""
    written: dict[int, list[str]] = {}
    for slot in trace.slots:
        written.setdefault(slot.number, []).append(trace.text[slot.start : slot.end])
    for number, texts in written.items():
        place = trace.marks.places[number]
        if place.message >= 0 and place.core not in texts:
            spellings = set(map(_without_space, _spellings(place.core)))
            if spellings.isdisjoint(map(_without_space, texts)):
                yield place.where
        elif place.part is not None and len(texts) > 1 and _is_answer(trace, place.message):
            yield f"{place.where} (which it writes {len(texts)} times)"


def _is_answer(trace: MarkedText, message: int) -> bool:
    return message >= 0 and trace.marks.conversation.messages[message].is_assistant


def _spellings(text: str) -> tuple[str, ...]:
    """Returns the spellings of a text inside JSON or a Python repr."""
    inside = json.dumps(text)[1:-1]
    return text, inside, json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]


def _without_space(text: str) -> str:
    return "".join(text.split())
