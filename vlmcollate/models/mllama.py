"""Llama 3.2 Vision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, NotPackable
from vlmcollate.media import MediaRequest, PadAndConcatenate, ProcessedMedia
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True)
class _FirstTileSeen(PadAndConcatenate):
    """Pads like the processor, with the first tile of missing images as seen."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        """See `Join`."""
        joined = super().join(values, key)
        joined[..., 0] = 1
        return joined


def _process(request: MediaRequest) -> ProcessedMedia:
    """Calls the image processor; one token stands for an image."""
    images = [list(request.items)]
    output = dict(request.processor.image_processor(images, return_tensors="pt"))
    output.pop("num_tiles")
    return ProcessedMedia(replacements=tuple(request.texts), tensors=output)


def _with_cross_attention(sample: EncodedSample, _: Any) -> EncodedSample:
    """Adds the images that each token attends to, the last ones before it."""
    if not sample.media:
        return sample
    places = (sample.media_ids >= 0).nonzero()[:, 0].tolist()
    ends = [*places[1:], len(sample)]
    for i in reversed(range(len(places) - 1)):
        if ends[i] == places[i] + 1:  # the next image follows immediately
            ends[i] = ends[i + 1]
    tiles = sample.media["aspect_ratio_mask"][0]
    mask = torch.zeros(len(sample), *tiles.shape, dtype=torch.int64)
    for i, (start, end) in enumerate(zip(places, ends, strict=True)):
        mask[start:end, i] = tiles[i]
    return attrs.evolve(sample, tokens={**sample.tokens, "cross_attention_mask": mask})


def _one_token(*_: Any) -> int:
    """Counts one token per image, whatever its size."""
    return 1


class MllamaCollator(BaseCollator):
    """Collates for Llama 3.2 Vision, whose text attends to its images by cross-attention.

    Media keys, one row per sample with M images at most: `pixel_values` (B, M, tiles, 3, height,
    width), `aspect_ratio_ids` (B, M), `aspect_ratio_mask` (B, M, tiles). A token key:
    `cross_attention_mask` (B, T, M, tiles) int64, the images that each token attends to.

    Source:
        transformers, `MllamaProcessor` and `get_cross_attention_token_mask`.
    """

    family = Family(
        joins={
            "pixel_values": PadAndConcatenate(every_sample=True, rows="sample"),
            "aspect_ratio_ids": PadAndConcatenate(every_sample=True, rows="sample"),
            "aspect_ratio_mask": _FirstTileSeen(every_sample=True, rows="sample"),
        },
        stop_tokens=("<|eot_id|>", "<|eom_id|>"),
        exact_token_counts=frozenset({"image"}),
        packing=NotPackable("its text attends to images by cross-attention, one row per sample"),
        process=_process,
        postprocess=_with_cross_attention,
        count_tokens=_one_token,
    )
