"""SmolVLM."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import PadAndConcatenate


@attrs.frozen(kw_only=True, eq=False)
class SmolVLMCollator(BaseCollator):
    """Collates for SmolVLM and SmolVLM2.

    Media keys, one row a sample that has images: `pixel_values` (rows, most tiles, 3, height,
    width), `pixel_attention_mask` (rows, most tiles, height, width), padded with zeros.

    Source:
        transformers, `SmolVLMProcessor`.
    """

    media_joins = {
        "pixel_values": PadAndConcatenate(),
        "pixel_attention_mask": PadAndConcatenate(),
    }
    default_stop_tokens = ("<end_of_utterance>",)
