"""Valid rows with one random JSON-like value where it does not belong."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from PIL import Image

_WORDS = (
    *("messages", "role", "content", "type", "text", "image", "video", "audio", "user"),
    *("assistant", "tool", "tool_calls", "function", "name", "arguments", "parameters"),
    *("properties", "required", "id", "weight", "train", "images", "tools", "fps", "sampling_rate"),
    *("bytes", "path", "url", "image_url", "array", "channel_axis", "conversation", "documents"),
    *("padding", "return_dict", "chat_template", "", "a", "\ud800", "<|im_end|>", "\x00"),
)
_SCALARS = (
    *(None, True, False, 0, 1, -1, 10**20, 10**400, 10**5000, -(2**70), 0.5, -0.0, 1e300, 1e-320),
    *(float("nan"), float("inf"), b"x", np.float32("nan"), np.int8(3), np.bool_(True)),
    *(np.datetime64("NaT"), np.str_("x"), np.array(1), np.array(["a", "b"]), np.zeros((2, 3))),
)
_KEYS = (3, None, True, 1.5, (1, 2))
_IMAGE = Image.new("RGB", (32, 32))


def grafted(draw: random.Random) -> dict[str, Any]:
    """A row of every shape of message, in which one value is replaced or one is added."""
    row = _row()
    container, key = draw.choice(list(_places(row)))
    if key is not None:
        container[key] = _value(draw)
    elif isinstance(container, dict):
        container[draw.choice(_WORDS)] = _value(draw)
    else:
        container.insert(draw.randint(0, len(container)), _value(draw))
    return row


def _row() -> dict[str, Any]:
    call = {"type": "function", "id": "x", "function": {"name": "f", "arguments": {"x": 1}}}
    schema = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    tool = {"name": "f", "description": "d", "parameters": schema}
    return {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "q"}]},
            {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": [call]},
            {"role": "tool", "content": "t", "tool_call_id": "x", "name": "f"},
            {"role": "assistant", "content": [{"type": "text", "text": "z"}], "weight": 0.5},
        ],
        "images": [_IMAGE],
        "tools": [{"type": "function", "function": tool}],
        "chat_template_kwargs": {"enable_thinking": True},
    }


def _places(value: Any) -> Any:
    """Every container in a value, with each of its keys and with `None` for one more."""
    if isinstance(value, dict | list):
        yield value, None
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def _value(draw: random.Random, level: int = 0) -> Any:
    kind = draw.random()
    if level > 4 or kind < 0.3:
        return draw.choice(_SCALARS)
    if kind < 0.55:
        return draw.choice(_WORDS)
    items = [_value(draw, level + 1) for _ in range(draw.randint(0, 4))]
    if kind < 0.75:
        return items
    if kind < 0.95:
        return {draw.choice(_WORDS if draw.random() < 0.9 else _KEYS): item for item in items}
    if kind < 0.97:
        array = np.empty(len(items), object)
        array[:] = items
        return array
    return _cycle() if kind < 0.985 else _deep(draw)


def _cycle() -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    found["b"] = [found]
    return found


def _deep(draw: random.Random) -> Any:
    found: Any = {}
    for _ in range(draw.choice((50, 60, 70, 3000))):
        found = draw.choice(({"k": found}, [found], {"function": found}))
    return found
