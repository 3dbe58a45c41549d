"""PaliGemma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.family import Family, NotPackable
from vlmcollate.media import Concatenate, MediaRequest, ProcessedMedia
from vlmcollate.prompt.plain import PromptWriter, prompt_and_answer
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample


def _render(
    conversation: Conversation, processor: Any, placeholders: Mapping[MediaKind, str]
) -> Rendering:
    """Writes the images, the prefix and the suffix."""
    prompt, answer = prompt_and_answer(conversation)
    writer = PromptWriter()
    for message, part in conversation.media:
        writer.place(placeholders[part.kind], part.kind, message)
    writer.write(processor.tokenizer.bos_token)
    writer.give(prompt, 0)
    writer.write("\n")
    writer.answer(answer, processor.tokenizer.eos_token, 1)
    return writer.finish()


def _process(request: MediaRequest) -> ProcessedMedia:
    """Calls the image processor; every image has the same number of tokens."""
    processor = request.processor
    output = processor.image_processor(images=list(request.items), return_tensors="pt")
    replacement = processor.image_token * processor.image_seq_length
    return ProcessedMedia(
        replacements=(replacement,) * len(request.items),
        tensors={"pixel_values": output["pixel_values"]},
    )


def _with_suffix(sample: EncodedSample, _: Any) -> EncodedSample:
    """Adds the mask of the suffix."""
    suffix = (sample.message_ids == 1).long()
    return attrs.evolve(sample, tokens={**sample.tokens, "token_type_ids": suffix})


class PaliGemmaCollator(BaseCollator):
    """Collates for PaliGemma: images and a prompt (the prefix), and an answer (the suffix).

    It takes one user message and one answer. The images come first, wherever they are in the
    message.

    Media keys: `pixel_values` (images, 3, height, width). A token key: `token_type_ids` (B, T), 1
    for the suffix, over which attention is causal.

    Source:
        transformers, `PaliGemmaProcessor`.
    """

    family = Family(
        joins={"pixel_values": Concatenate(rows="image")},
        exact_token_counts=frozenset({"image"}),
        packing=NotPackable("its prompt attends to itself bidirectionally"),
        needs_chat_template=False,
        process=_process,
        render=_render,
        postprocess=_with_suffix,
    )
