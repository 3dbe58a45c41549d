"""Gemma 3n."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate, PadAndConcatenate


@attrs.frozen(kw_only=True, eq=False)
class Gemma3nCollator(BaseCollator):
    """Collates for Gemma 3n: text, images and sound.

    Media keys: `pixel_values` (images, 3, height, width), `input_features` (sounds, frames, mel
    bins) and `input_features_mask` (sounds, frames) bool, padded to the longest sound.

    Source:
        transformers, `Gemma3nProcessor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image"),
        "input_features": PadAndConcatenate(rows="audio"),
        "input_features_mask": PadAndConcatenate(rows="audio"),
    }
    token_type_key = "token_type_ids"
    exact_token_counts = ("image",)
    default_stop_tokens = ("<end_of_turn>",)
