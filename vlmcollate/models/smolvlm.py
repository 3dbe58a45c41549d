"""SmolVLM."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.errors import MediaError
from vlmcollate.family import Family, Packable
from vlmcollate.media import (
    MediaRequest,
    PadAndConcatenate,
    ProcessedMedia,
    process_per_item,
    process_together,
)
from vlmcollate.packing.token_mixing import TokenMixing

_MASK = "pixel_attention_mask"


def _process(request: MediaRequest) -> ProcessedMedia:
    """Processes images together, and videos one by one.

    Raises:
        MediaError: A sample holds both images and videos; the processor would keep one kind.
    """
    if len(set(request.kinds)) > 1:
        raise MediaError(
            "the sample holds images and videos, of which this processor keeps only one kind; "
            "split the sample, or pass the video's frames as images"
        )
    if "video" not in request.kinds:
        return process_together(request)
    # up to transformers 5.22, the processor takes one list of videos per sample
    options = [{"videos": [[v.frames]]} for v in request.items]
    processed = process_per_item(request, options=options)
    mask = processed.tensors[_MASK].to(_mask_dtype())
    return attrs.evolve(processed, tensors={**processed.tensors, _MASK: mask})


@cache
def _mask_dtype() -> torch.dtype:
    """The dtype of the masks of images; those of videos have always been integers."""
    major, minor, *_ = version("transformers").split(".")
    return torch.int64 if (int(major), int(minor)) >= (5, 18) else torch.float32


def _count_tokens(processor: Any, _: MediaKind, size: tuple[int, ...]) -> int:
    """Counts the tokens of an image.

    An image is a grid of tiles, with two tokens before each tile and a line break after each row,
    and a last tile of the whole image, with one more token and another line break.
    """
    height, width = size
    _, rows, columns = processor.image_processor.get_number_of_image_patches(height, width)
    tile: int = processor.image_seq_len
    breaks = rows
    if rows:  # the last row's break and the one before the last tile may be one token
        breaks += len(processor.tokenizer.encode("\n\n", add_special_tokens=False)) - 1
    return int(rows * columns * (tile + 2) + breaks + tile + 3)


class SmolVLMCollator(BaseCollator):
    """Collates for SmolVLM and SmolVLM2: text with images, or with videos.

    Media keys, one row per sample with images and one per video: `pixel_values` (rows, maximum
    tiles, 3, height, width), `pixel_attention_mask` (rows, maximum tiles, height, width), padded
    with zeros.

    Source:
        transformers, `SmolVLMProcessor`.
    """

    family = Family(
        joins={
            "pixel_values": PadAndConcatenate(rows="samples with image + video"),
            _MASK: PadAndConcatenate(rows="samples with image + video"),
        },
        stop_tokens=("<end_of_utterance>",),
        exact_token_counts=frozenset({"image"}),
        packing=Packable(token_mixing=TokenMixing(model="SmolVLM")),
        process=_process,
        count_tokens=_count_tokens,
    )
