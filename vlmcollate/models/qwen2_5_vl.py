"""Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate, process_patch_grids
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.packing.mrope import mrope_positions
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.prompt.chat import Rendering
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import at_least_one


@attrs.frozen(kw_only=True, eq=False)
class Qwen2_5_VLCollator(BaseCollator):
    """Collates for Qwen2.5-VL.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_thw` (images, 3),
    `pixel_values_videos` and `video_grid_thw` alike,
    `second_per_grid_ts` (videos,) float32, the seconds between two of a video's patch layers.

    Args:
        tokens_per_second: The model's `vision_config.tokens_per_second`, from which the positions
            of a pack's videos follow.

    Source:
        transformers, `Qwen2_5_VLProcessor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image_grid_thw"),
        "image_grid_thw": Concatenate(rows="image"),
        "pixel_values_videos": Concatenate(rows="video_grid_thw"),
        "video_grid_thw": Concatenate(rows="video"),
        "second_per_grid_ts": Concatenate(rows="video"),
    }
    token_type_key = "mm_token_type_ids"
    exact_token_counts = ("image", "video")
    default_stop_tokens = ("<|im_end|>",)
    token_mixing = TokenMixing(model="Qwen2.5-VL")

    tokens_per_second: int = attrs.field(default=2, validator=at_least_one)

    def position_ids(self, sample: EncodedSample) -> Tensor:
        """(L, 4): the position in the text, then the layer, row and column."""
        seconds = sample.media.get("second_per_grid_ts")
        return mrope_positions(
            sample.tokens[self.token_type_key],
            sample.media.get("image_grid_thw"),
            sample.media.get("video_grid_thw"),
            merge_size=self.processor.image_processor.merge_size,
            video_steps=None if seconds is None else self.tokens_per_second * seconds,
        )

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        if all(span.kind == "image" for span in rendering.media):
            return process_patch_grids(self.processor, media)
        return super().process_media(rendering, media)
