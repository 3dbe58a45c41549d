"""Qwen3-VL and Qwen3.5."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable, TokenTypes
from vlmcollate.media import grid_joins, process_patch_grids
from vlmcollate.packing.mrope import MRope


class Qwen3VLCollator(BaseCollator):
    """Collates for Qwen3-VL and for Qwen3.5, which shares its processor.

    Qwen3.5's template forces a think block at the generation prompt; it is not trained.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_thw` (images, 3),
    `pixel_values_videos` and `video_grid_thw` likewise.

    Source:
        transformers, `Qwen3VLProcessor`; the limits of a frame, `qwen-vl-utils`.
    """

    family = Family(
        joins=grid_joins(),
        stop_tokens=("<|im_end|>",),
        token_types=TokenTypes("mm_token_type_ids"),
        exact_token_counts=frozenset({"image", "video"}),
        packing=Packable(positions=MRope(frames_apart=True)),
        process=process_patch_grids,
        frame_tokens=(128, 768),
    )
