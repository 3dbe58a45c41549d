"""LLaVA 1.5."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family
from vlmcollate.media import Concatenate


class LlavaCollator(BaseCollator):
    """Collates for LLaVA 1.5 and other models with its processor: text and images.

    The published chat template ends no answer, so a model trained with it never learns to stop. The
    original model was trained with the tokenizer's eos token after each answer, so the collator
    adds the token if the template leaves answers open.

    Media keys: `pixel_values` (images, 3, height, width).

    Source:
        transformers, `LlavaProcessor`; the conversation format of LLaVA 1.5's training code.
    """

    family = Family(
        joins={"pixel_values": Concatenate(rows="image")},
        exact_token_counts=frozenset({"image"}),
        unclosed_turns="append_eos",
    )
