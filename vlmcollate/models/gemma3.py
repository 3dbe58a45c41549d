"""Gemma 3."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate
from vlmcollate.packing.token_mixing import TokenMixing


@attrs.frozen(kw_only=True, eq=False)
class Gemma3Collator(BaseCollator):
    """Collates for Gemma 3.

    Media keys: `pixel_values` (images and their crops, 3, height, width).

    Source:
        transformers, `Gemma3Processor`; its tokenizer may be set to pad on the left.
    """

    media_joins = {"pixel_values": Concatenate(rows="image")}
    token_type_key = "token_type_ids"
    exact_token_counts = ("image",)
    default_stop_tokens = ("<end_of_turn>",)
    token_mixing = TokenMixing(
        model="Gemma 3", kinds=frozenset({"full_attention", "sliding_attention"})
    )
    bidirectional_images = True
