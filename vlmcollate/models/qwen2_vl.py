"""Qwen2-VL."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate


@attrs.frozen(kw_only=True, eq=False)
class Qwen2VLCollator(BaseCollator):
    """Collates for Qwen2-VL.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_thw` (images, 3).

    Source:
        transformers, `Qwen2VLProcessor`.
    """

    media_joins = {"pixel_values": Concatenate(), "image_grid_thw": Concatenate()}
    token_type_key = "mm_token_type_ids"
    default_stop_tokens = ("<|im_end|>",)
