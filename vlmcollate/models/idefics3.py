"""Idefics 3."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable
from vlmcollate.media import PadAndConcatenate
from vlmcollate.packing.token_mixing import TokenMixing


class Idefics3Collator(BaseCollator):
    """Collates for Idefics 3.

    Media keys, one row per sample with images: `pixel_values` (rows, maximum tiles, 3, height,
    width), `pixel_attention_mask` (rows, maximum tiles, height, width), padded with zeros.

    Source:
        transformers, `Idefics3Processor`.
    """

    family = Family(
        joins={
            "pixel_values": PadAndConcatenate(rows="samples with image"),
            "pixel_attention_mask": PadAndConcatenate(rows="samples with image"),
        },
        stop_tokens=("<end_of_utterance>",),
        exact_token_counts=frozenset({"image"}),
        packing=Packable(token_mixing=TokenMixing(model="Idefics 3")),
    )
