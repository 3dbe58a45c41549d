"""LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Sequence

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.family import Family, Packable
from vlmcollate.media import Concatenate, PadAndConcatenate
from vlmcollate.packing.token_mixing import TokenMixing


class LlavaOnevisionCollator(BaseCollator):
    """Collates for LLaVA-OneVision.

    Media keys: `pixel_values` (images, maximum tiles, 3, height, width) padded with zeros,
    `image_sizes` (images, 2), `batch_num_images` (samples with images,); `pixel_values_videos`
    (videos, frames, 3, height, width), all videos of a batch with the same number of frames.

    Source:
        transformers, `LlavaOnevisionProcessor`.
    """

    family = Family(
        joins={
            "pixel_values": PadAndConcatenate(rows="image"),
            "image_sizes": Concatenate(rows="image"),
            "batch_num_images": Concatenate(rows="samples with image"),
            "pixel_values_videos": Concatenate(rows="video"),
        },
        stop_tokens=("<|im_end|>",),
        exact_token_counts=frozenset({"image", "video"}),
        packing=Packable(token_mixing=TokenMixing(model="LLaVA-OneVision")),
    )

    def counts_media(self, kinds: Sequence[MediaKind]) -> bool:
        """See `BaseCollator`; several images are tiled differently from one."""
        return super().counts_media(kinds) and kinds.count("image") <= 1
