"""PaliGemma."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation
from vlmcollate.media import Concatenate
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.chat import Rendering
from vlmcollate.prompt.plain import PromptWriter, prompt_and_answer
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class PaliGemmaCollator(BaseCollator):
    """Collates for PaliGemma: images and a prompt (the prefix), and an answer (the suffix).

    It takes one user message and one answer. The images come first, wherever they stand in the
    message.

    Media keys: `pixel_values` (images, 3, height, width). A token key: `token_type_ids` (B, T), 1
    for the suffix, over which attention is causal.

    Source:
        transformers, `PaliGemmaProcessor`.
    """

    media_joins = {"pixel_values": Concatenate(rows="image")}
    exact_token_counts = ("image",)
    needs_chat_template: ClassVar[bool] = False
    no_packs_because = "its prompt sees itself both ways"

    def render(self, conversation: Conversation) -> Rendering:
        """See `BaseCollator`."""
        prompt, answer = prompt_and_answer(conversation)
        writer = PromptWriter()
        for message, part in conversation.media:
            writer.place(self.placeholders[part.kind], part.kind, message)
        writer.write(self.processor.tokenizer.bos_token)
        writer.give(prompt, 0)
        writer.write("\n")
        writer.answer(answer, self.processor.tokenizer.eos_token, 1)
        return writer.finish()

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        output = self.processor.image_processor(images=list(media), return_tensors="pt")
        replacement = self.processor.image_token * self.processor.image_seq_length
        return ProcessedMedia(
            replacements=(replacement,) * len(media),
            tensors={"pixel_values": output["pixel_values"]},
        )

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        """Adds which tokens are the suffix."""
        suffix = (sample.message_ids == 1).long()
        return attrs.evolve(sample, tokens={**sample.tokens, "token_type_ids": suffix})
