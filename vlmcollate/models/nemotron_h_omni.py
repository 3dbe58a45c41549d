"""Nemotron Omni."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family
from vlmcollate.media import (
    Concatenate,
    MediaRequest,
    PadAndConcatenate,
    ProcessedMedia,
    process_per_item,
)


def _process(request: MediaRequest) -> ProcessedMedia:
    """Processes one item per call; passes a video's metadata without a list."""
    options = [
        {"videos_kwargs": {"video_metadata": item.metadata()}} if kind == "video" else {}
        for kind, item in zip(request.kinds, request.items, strict=True)
    ]
    return process_per_item(request, options=options)


class NemotronH_Omni_Reasoning_V3Collator(BaseCollator):
    """Collates for Nemotron Omni: text, images, videos and audio.

    Its processor takes one video per call and does not return the text for a placeholder, so each
    item is processed by itself.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_hw` (images, 2),
    `pixel_values_videos` (frames of all videos, 3, height, width), `input_features` (audio
    items, frames, mel bins), `input_features_mask` (audio items, frames).

    Source:
        transformers, `NemotronH_Omni_Reasoning_V3Processor`.
    """

    family = Family(
        joins={
            "pixel_values": Concatenate(rows="image_grid_hw"),
            "image_grid_hw": Concatenate(rows="image"),
            "pixel_values_videos": Concatenate(),
            "input_features": PadAndConcatenate(rows="audio"),
            "input_features_mask": PadAndConcatenate(rows="audio"),
        },
        stop_tokens=("<|im_end|>",),
        process=_process,
    )
