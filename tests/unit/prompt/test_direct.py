"""Templates that are rendered without the processor, against the processor's own renderings."""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

import jinja2
import pytest
from transformers import ProcessorMixin

from tests.processors import build, processor_of
from vlmcollate import collator_for
from vlmcollate.prompt.direct import render_directly, renders_as_usual

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
    usual, calls = jinja2.Template.render, []

    def counted(self, *arguments, **options):
        calls.append(options)
        return usual(self, *arguments, **options)

    monkeypatch.setattr(jinja2.Template, "render", counted)  # which only the processor calls
    for words in ("Where?", "What is it?", "<|im_start|>"):
        chat = [{"role": "user", "content": words}, {"role": "assistant", "content": "Here."}]
        before = len(calls)
        text = collator.renderer(collator.read_conversation(chat)).text
        assert (len(calls) > before) == (words == "Where?")
        assert text == collator.processor.apply_chat_template(chat)


@pytest.mark.parametrize("where", ["mixin", "class", "object"])
@pytest.mark.parametrize("name", ["apply_chat_template", "_normalize_conversations"])
def test_a_method_that_somebody_replaces_is_called(where, name, monkeypatch):
    processor = build("qwen3_vl")
    collator = collator_for(processor)
    collator.encode([{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}])
    own = getattr(ProcessorMixin, name)

    @functools.wraps(own)  # as of a library that changes another
    def replaced(*given, **options):
        return own(*given, **options)

    owner = {"mixin": ProcessorMixin, "class": type(processor), "object": processor}[where]
    method = types.MethodType(replaced, processor) if where == "object" else replaced
    monkeypatch.setattr(owner, name, method)
    assert not renders_as_usual(processor)
