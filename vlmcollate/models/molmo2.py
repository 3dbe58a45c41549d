"""Molmo 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, NotPackable, TokenTypes
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


def _bos_or_eos(tokenizer: Any) -> str:
    """Returns the token that begins every prompt."""
    return str(tokenizer.bos_token or tokenizer.eos_token)


class Molmo2Collator(BaseCollator):
    """Collates for Molmo 2: text, images and one video per sample.

    Media keys: `pixel_values` (crops, patches, features), `image_token_pooling` (image tokens, 4),
    the patches of the batch that each token pools, `image_grids` (images, 4), `image_num_crops`
    (images,); `pixel_values_videos`, `video_token_pooling` and `video_grids` likewise.

    Source:
        transformers, `Molmo2Processor` and `Molmo2ImageProcessor`.
    """

    family = Family(
        joins={
            "pixel_values": Concatenate(),
            "image_token_pooling": _PatchIndices(),
            "image_grids": Concatenate(),
            "image_num_crops": Concatenate(),
            "pixel_values_videos": Concatenate(),
            "video_token_pooling": _PatchIndices(),
            "video_grids": Concatenate(),
        },
        stop_tokens=("<|im_end|>",),
        token_types=TokenTypes("mm_token_type_ids"),
        exact_token_counts=frozenset({"image"}),
        packing=NotPackable("its image tokens attend to each other bidirectionally"),
        prompt_prefix=_bos_or_eos,
    )
