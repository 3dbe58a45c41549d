"""Collators that go wrong where a template writes otherwise in some chats, each in one way."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import attrs

from tests.processors import build
from vlmcollate.conversation import Conversation
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.testing import tiny_processor

_BLOCK = re.compile(r"\s*(<think>)?\s*</think>\s*")


def thinking() -> Any:
    """Qwen3.5's own template with thinking on, which opens a block in every generation prompt."""
    made = build("qwen3_5")
    made.chat_template = "{%- set enable_thinking = true -%}" + made.chat_template
    return made


def trimming() -> Any:
    """A processor that writes an empty block, and a newline before the words that follow it."""
    made = tiny_processor()
    made.tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    made.chat_template = (
        "{%- for message in messages -%}{{- '<|im_start|>' + message.role -}}"
        "{%- if message.role == 'assistant' -%}{{- '\\n<think></think>' -}}{%- endif -%}"
        "{%- if message.content | trim -%}{{- '\\n' + message.content | trim -}}{%- endif -%}"
        "{{- '<|im_end|>' -}}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant' -}}{%- endif -%}"
    )
    return made


def moving() -> Any:
    """A processor that writes the system message before the last question, like Mistral's."""
    made = tiny_processor()
    said = "(message.content if message.content is string else message.content[-1].text)"
    made.chat_template = (
        "{%- set own = namespace(said='', last=-1) -%}{%- for message in messages -%}"
        f"{{%- if message.role == 'system' -%}}{{%- set own.said = {said} ~ '\\n\\n' -%}}"
        "{%- elif message.role == 'user' -%}{%- set own.last = loop.index0 -%}{%- endif -%}"
        "{%- endfor -%}{%- for message in messages -%}{%- if message.role != 'system' -%}"
        "{{- '<|im_start|>' + message.role + '\n' -}}"
        "{%- if loop.index0 == own.last -%}{{- own.said -}}{%- endif -%}"
        f"{{{{- {said} -}}}}{{{{- '<|im_end|>\\n' -}}}}{{%- endif -%}}{{%- endfor -%}}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
    )
    return made


def _without_block(
    collator: Any, prompt: EncodedPrompt, turns: list[Turn], *, wordless: bool
) -> list[Turn]:
    """Returns turns of which some begin behind the block that the template writes."""
    decode, found = collator.processor.tokenizer.decode, []
    for turn in turns:
        ids = prompt.ids[turn.start : turn.end].tolist()
        block = _BLOCK.match(decode(ids))
        is_wordless = block is not None and decode(ids)[block.end() :] == "<|im_end|>"
        start = turn.start
        if block and is_wordless == wordless and turn is not turns[-1]:
            start += next(n for n in range(len(ids)) if len(decode(ids[:n])) >= block.end())
        found.append(Turn(turn.message, start, turn.end))
    return found


@attrs.frozen(kw_only=True, eq=False)
class SkipsEarlierBlocks(Qwen2_5_VLCollator):
    """Begins an earlier answer behind the block that its prompt opens, which the model closes."""

    example_processor: ClassVar[Any] = thinking()

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        name, turns = super().label(prompt, conversation)
        return name, _without_block(self, prompt, turns, wordless=False)


@attrs.frozen(kw_only=True, eq=False)
class SkipsBlocksWithoutWords(Qwen2_5_VLCollator):
    """Trains nothing but the end of an answer without words."""

    example_processor: ClassVar[Any] = trimming()

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        name, turns = super().label(prompt, conversation)
        return name, _without_block(self, prompt, turns, wordless=True)


@attrs.frozen(kw_only=True, eq=False)
class HidesWhatMoved(Qwen2_5_VLCollator):
    """Reports no system message that its template writes behind earlier turns."""

    example_processor: ClassVar[Any] = moving()

    def render(self, conversation: Conversation) -> Rendering:
        return attrs.evolve(super().render(conversation), notes=())


CAUGHT_BY: dict[type[Any], str] = {
    SkipsEarlierBlocks: "check_only_answers_train",
    SkipsBlocksWithoutWords: "check_only_answers_train",
    HidesWhatMoved: "check_prompt_preserves_messages",
}
