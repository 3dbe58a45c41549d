"""Molmo 2."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate


@attrs.frozen(kw_only=True)
class _PatchIndices(Concatenate):
    """Concatenates indices into all patches of the batch; -1 stands for none.

    A sample's indices count its own patches, of which the last one always belongs to a pool.
    """

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        """See `Join`."""
        shifted, before = [], 0
        for value in values:
            shifted.append(torch.where(value >= 0, value + before, value))
            before += int(value.max()) + 1
        return super().join(shifted, key)


@attrs.frozen(kw_only=True, eq=False)
class Molmo2Collator(BaseCollator):
    """Collates for Molmo 2: text, images and one video a sample.

    Media keys: `pixel_values` (crops, patches, features), `image_token_pooling` (image tokens, 4),
    which patches of the batch each token pools, `image_grids` (images, 4), `image_num_crops`
    (images,); `pixel_values_videos`, `video_token_pooling` and `video_grids` alike.

    Source:
        transformers, `Molmo2Processor` and `Molmo2ImageProcessor`.
    """

    media_joins = {
        "pixel_values": Concatenate(),
        "image_token_pooling": _PatchIndices(),
        "image_grids": Concatenate(),
        "image_num_crops": Concatenate(),
        "pixel_values_videos": Concatenate(),
        "video_token_pooling": _PatchIndices(),
        "video_grids": Concatenate(),
    }
    token_type_key = "mm_token_type_ids"
    exact_token_counts = ("image",)
    default_stop_tokens = ("<|im_end|>",)
    no_packs_because = "its image tokens see each other both ways"

    @property
    def opening(self) -> str:
        """See `BaseCollator`."""
        return str(self.processor.tokenizer.bos_token or self.processor.tokenizer.eos_token)
