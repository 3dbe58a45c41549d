"""Qwen2-VL."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable, TokenTypes
from vlmcollate.media import grid_joins, process_patch_grids
from vlmcollate.packing.mrope import MRope
from vlmcollate.packing.token_mixing import TokenMixing


class Qwen2VLCollator(BaseCollator):
    """Collates for Qwen2-VL.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_thw` (images, 3),
    `pixel_values_videos` and `video_grid_thw` likewise.

    Source:
        transformers, `Qwen2VLProcessor`.
    """

    family = Family(
        joins=grid_joins(),
        stop_tokens=("<|im_end|>",),
        token_types=TokenTypes("mm_token_type_ids"),
        exact_token_counts=frozenset({"image", "video"}),
        packing=Packable(positions=MRope(), token_mixing=TokenMixing(model="Qwen2-VL")),
        process=process_patch_grids,
    )
