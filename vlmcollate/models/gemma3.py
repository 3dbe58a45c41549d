"""Gemma 3."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.media import Concatenate


@attrs.frozen(kw_only=True, eq=False)
class Gemma3Collator(BaseCollator):
    """Collates for Gemma 3.

    Media keys: `pixel_values` (images and their crops, 3, height, width).

    Source:
        transformers, `Gemma3Processor`; its tokenizer may be set to pad on the left.
    """

    media_joins = {"pixel_values": Concatenate(by="image")}
    token_type_key = "token_type_ids"
    counted_media = ("image",)
    default_stop_tokens = ("<end_of_turn>",)
    bidirectional_images = True

    def __attrs_post_init__(self) -> None:
        """Refuses a mask that the sliding layers would take for their own."""
        super().__attrs_post_init__()
        if getattr(self.padding, "sliding_window", 0) is None:
            raise ConfigError(
                f"Gemma 3 has sliding layers; set {type(self.padding).__name__}(sliding_window=...)"
                " to its text config's sliding_window"
            )
