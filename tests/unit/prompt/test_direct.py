"""Templates that are rendered without the processor, against the processor's own renderings."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from transformers import ProcessorMixin

from tests.processors import processor_of
from vlmcollate import collator_for
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


def replacing(words: str) -> Any:
    """A processor that changes the words of messages before its template sees them."""
    usual = ProcessorMixin._normalize_conversations

    def normalized(self, conversation):
        chats, is_batched = usual(self, conversation)
        return [
            [{**m, "content": str(m["content"]).replace("secret", words)} for m in chat]
            for chat in chats
        ], is_batched

    processor = copy.copy(processor_of("qwen3_vl"))
    kind = type(processor)
    processor.__class__ = type(kind.__name__, (kind,), {"_normalize_conversations": normalized})
    return processor


@pytest.mark.skipif(
    not hasattr(ProcessorMixin, "_normalize_conversations"), reason="older releases have no helper"
)
def test_a_processor_that_changes_messages_renders_them_itself():
    processor = replacing("******")
    assert render_directly(processor, CHAT, None, {}) is None
    processor = copy.copy(processor_of("qwen3_vl"))
    processor._normalize_conversations = lambda conversation: ([conversation], False)
    assert render_directly(processor, CHAT, None, {}) is None


def test_prompts_of_a_known_shape_are_those_of_the_processor(monkeypatch):
    collator = collator_for(processor_of("qwen3_vl"))
    usual, calls = ProcessorMixin.apply_chat_template, []

    def counted(self, conversation, *arguments, **options):
        calls.append(conversation)
        return usual(self, conversation, *arguments, **options)

    monkeypatch.setattr(ProcessorMixin, "apply_chat_template", counted)
    for words in ("Where?", "What is it?", "<|im_start|>"):
        chat = [{"role": "user", "content": words}, {"role": "assistant", "content": "Here."}]
        before = len(calls)
        text = collator.renderer(collator.read_conversation(chat)).text
        assert text == usual(collator.processor, chat)
        assert (len(calls) > before) == (words == "Where?")
