"""Templates that are rendered without the processor, against the processor's own renderings."""

from __future__ import annotations

import copy
from typing import Any

from tests.processors import processor_of
from vlmcollate.prompt.direct import render_directly

CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]},
    {"role": "assistant", "content": "Here.", "name": None, "reasoning_content": "Hm."},
]
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def test_both_ways_write_the_same_text():
    processor = processor_of("qwen3_vl")
    text = render_directly(processor, CHAT, TOOLS, {"add_vision_id": True})
    assert text == processor.apply_chat_template(CHAT, tools=TOOLS, add_vision_id=True)


def test_arguments_and_methods_of_a_processor_are_left_to_it():
    processor = copy.copy(processor_of("qwen3_vl"))
    assert render_directly(processor, CHAT, None, {"tokenize": False}) is None
    processor.apply_chat_template = lambda chat, **options: "other"
    assert render_directly(processor, CHAT, None, {}) is None
