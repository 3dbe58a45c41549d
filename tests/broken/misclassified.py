"""Collators that are wrong for other objectives than the next token, each in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from tests.broken.misquoted import WithTools
from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation


@attrs.frozen(kw_only=True, eq=False)
class PadsWithAWord(WithTools):
    """Fills rows with a token of text."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Any]:  # type: ignore[misc]
        batch = super().stack(samples)
        word = self.processor.tokenizer.convert_tokens_to_ids("a")
        mask = batch["attention_mask"]
        if isinstance(mask, torch.Tensor) and mask.ndim == 2:
            batch["input_ids"] = batch["input_ids"].masked_fill(mask == 0, word)
        return batch


@attrs.frozen(kw_only=True, eq=False)
class ForgetsEarlierImages(WithTools):
    """Makes the pixels of parts of a document black."""

    def sharing(  # type: ignore[misc]  # final
        self, conversations: Sequence[Conversation]
    ) -> Callable[[Conversation], EncodedSample]:
        encode = super().sharing(conversations)

        def encoded(conversation: Conversation) -> EncodedSample:
            sample = encode(conversation)
            if conversation is conversations[0] or not conversation.is_plain_text:
                return sample
            black = {key: torch.zeros_like(value) for key, value in sample.media.items()}
            return attrs.evolve(sample, media={**black, **_grids(sample)})

        return encoded


def _grids(sample: EncodedSample) -> dict[str, torch.Tensor]:
    return {key: value for key, value in sample.media.items() if key.endswith("_thw")}


CAUGHT_BY: dict[type[Any], str] = {
    PadsWithAWord: "check_a_class_is_read_off_the_last_token",
    ForgetsEarlierImages: "check_documents_are_split_without_loss",
}
