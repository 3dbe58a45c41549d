"""Gemma 3n."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, TokenTypes
from vlmcollate.media import Concatenate, PadAndConcatenate


class Gemma3nCollator(BaseCollator):
    """Collates for Gemma 3n: text, images and audio.

    Media keys: `pixel_values` (images, 3, height, width), `input_features` (audio items, frames,
    mel bins) and `input_features_mask` (audio items, frames) bool, padded to the longest item.

    Source:
        transformers, `Gemma3nProcessor`.
    """

    family = Family(
        joins={
            "pixel_values": Concatenate(rows="image"),
            "input_features": PadAndConcatenate(rows="audio"),
            "input_features_mask": PadAndConcatenate(rows="audio"),
        },
        stop_tokens=("<end_of_turn>",),
        token_types=TokenTypes("token_type_ids"),
        exact_token_counts=frozenset({"image"}),
    )
