"""Qwen3-VL and Qwen3.5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate, process_patch_grids
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.packing.mrope import mrope_positions
from vlmcollate.prompt.chat import Rendering
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class Qwen3VLCollator(BaseCollator):
    """Collates for Qwen3-VL and for Qwen3.5, which shares its processor.

    Qwen3.5's template forces a think block at the generation prompt; it is not trained.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_thw` (images, 3),
    `pixel_values_videos` and `video_grid_thw` alike.

    Source:
        transformers, `Qwen3VLProcessor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image_grid_thw"),
        "image_grid_thw": Concatenate(rows="image"),
        "pixel_values_videos": Concatenate(rows="video_grid_thw"),
        "video_grid_thw": Concatenate(rows="video"),
    }
    token_type_key = "mm_token_type_ids"
    exact_token_counts = ("image", "video")
    default_stop_tokens = ("<|im_end|>",)

    def position_ids(self, sample: EncodedSample) -> Tensor:
        """(L, 4): the position in the text, then the layer, row and column."""
        videos = sample.media.get("video_grid_thw")
        if videos is not None:  # each layer of a video stands apart, behind its time
            videos = videos.repeat_interleave(videos[:, 0], dim=0)
            videos[:, 0] = 1
        return mrope_positions(
            sample.tokens[self.token_type_key],
            sample.media.get("image_grid_thw"),
            videos,
            merge_size=self.processor.image_processor.merge_size,
        )

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        if all(span.kind == "image" for span in rendering.media):
            return process_patch_grids(self.processor, media)
        return super().process_media(rendering, media)
