"""Qwen2.5-VL."""

from __future__ import annotations

import attrs
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable, TokenTypes
from vlmcollate.media import Concatenate, grid_joins, process_patch_grids
from vlmcollate.packing.mrope import MRope
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import at_least_one


@attrs.frozen(kw_only=True, eq=False)
class Qwen2_5_VLCollator(BaseCollator):
    """Collates for Qwen2.5-VL.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_thw` (images, 3),
    `pixel_values_videos` and `video_grid_thw` likewise,
    `second_per_grid_ts` (videos,) float32, the seconds between two patch layers of a video.

    Args:
        tokens_per_second: The model's `vision_config.tokens_per_second`, for the positions of
            videos in a pack.

    Source:
        transformers, `Qwen2_5_VLProcessor`.
    """

    family = Family(
        joins=grid_joins(second_per_grid_ts=Concatenate(rows="video")),
        stop_tokens=("<|im_end|>",),
        token_types=TokenTypes("mm_token_type_ids"),
        exact_token_counts=frozenset({"image", "video"}),
        packing=Packable(token_mixing=TokenMixing(model="Qwen2.5-VL")),
        process=process_patch_grids,
    )

    tokens_per_second: int = attrs.field(default=2, validator=at_least_one)

    def position_ids(self, sample: EncodedSample) -> Tensor:
        """See `BaseCollator`; (L, 4): the position in the text, then the layer, row and column."""
        return MRope(tokens_per_second=self.tokens_per_second)(sample, self.processor)
