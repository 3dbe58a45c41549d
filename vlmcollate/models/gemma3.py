"""Gemma 3."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable, TokenTypes
from vlmcollate.media import Concatenate
from vlmcollate.packing.token_mixing import TokenMixing


class Gemma3Collator(BaseCollator):
    """Collates for Gemma 3.

    Media keys: `pixel_values` (images and their crops, 3, height, width).

    Source:
        transformers, `Gemma3Processor`; its tokenizer may be set to pad on the left.
    """

    family = Family(
        joins={"pixel_values": Concatenate(rows="image")},
        stop_tokens=("<end_of_turn>",),
        token_types=TokenTypes("token_type_ids"),
        exact_token_counts=frozenset({"image"}),
        packing=Packable(
            bidirectional_images=True,
            token_mixing=TokenMixing(
                model="Gemma 3", kinds=frozenset({"full_attention", "sliding_attention"})
            ),
        ),
    )
