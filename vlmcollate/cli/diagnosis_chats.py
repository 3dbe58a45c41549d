"""The kinds of chat with which `vlmcollate doctor` tries a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from vlmcollate.collator import BaseCollator

NAMES = ("Ada", "Grace")
"""The names of authors in the chat with names."""

_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Looks the weather up.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        },
    }
]
_CALL = {
    "type": "function",
    "id": "call00000",
    "function": {"name": "weather", "arguments": {"place": "Bern"}},
}


def _said(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


QUESTION = _said("user", "How warm is it?")
_ANSWER = _said("assistant", "It is mild.")
_MORE = [_said("user", "And tomorrow?"), _said("assistant", "It will rain.")]
_RESULT = _said("tool", "7 degrees", name="weather", tool_call_id="call00000")
_CHATS: dict[str, dict[str, Any]] = {
    "one answer": {"messages": [QUESTION, _ANSWER]},
    "several answers": {"messages": [QUESTION, _ANSWER, *_MORE]},
    "a system message": {"messages": [_said("system", "Be brief."), QUESTION, _ANSWER, *_MORE]},
    "an answer first": {"messages": [_said("assistant", "Hello."), *_MORE]},
    "names": {"messages": [{**QUESTION, "name": NAMES[0]}, {**_ANSWER, "name": NAMES[1]}]},
    "reasoning": {
        "messages": [
            *(QUESTION, {**_ANSWER, "reasoning_content": "Spring."}),
            *(_MORE[0], {**_MORE[1], "reasoning_content": "Clouds."}),
        ]
    },
    "a tool call": {
        "messages": [QUESTION, _said("assistant", "", tool_calls=[_CALL]), _RESULT, _ANSWER],
        "tools": _TOOLS,
    },
    "text before a tool call": {
        "messages": [
            *(QUESTION, _said("assistant", "Let me see.", tool_calls=[_CALL]), _RESULT, _ANSWER),
        ],
        "tools": _TOOLS,
    },
}


def chats_for(collator: BaseCollator) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the names and the examples of all kinds of chat that a collator may take."""
    yield from _CHATS.items()
    if collator.supports("image"):
        image = {"type": "image", "image": Image.new("RGB", (112, 112), "teal")}
        question = _said("user", "What is it?") | {
            "content": [image, {"type": "text", "text": "What is it?"}]
        }
        yield "an image", {"messages": [question, _said("assistant", "A square.")]}
