"""Kimi K2.5, with the processor of transformers."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable
from vlmcollate.media import Concatenate
from vlmcollate.packing.token_mixing import TokenMixing


class Kimi_K25Collator(BaseCollator):
    """Collates for Kimi K2.5: text, images and videos.

    The empty think block that the template forces before an answer is not trained.

    Media keys: `pixel_values` (patches, 3, height, width) and `image_grid_thw` (images, 3);
    `pixel_values_videos` likewise and `video_grid_thw` (chunks of frames, 3).

    Source:
        transformers, `Kimi_K25Processor`.
    """

    family = Family(
        joins={
            "pixel_values": Concatenate(rows="image_grid_thw"),
            "image_grid_thw": Concatenate(rows="image"),
            "pixel_values_videos": Concatenate(),
            "video_grid_thw": Concatenate(),
        },
        stop_tokens=("<|im_end|>",),
        exact_token_counts=frozenset({"image"}),
        packing=Packable(token_mixing=TokenMixing(model="Kimi K2.5")),
    )
