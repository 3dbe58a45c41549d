"""Nemotron Omni."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate, PadAndConcatenate, process_one_by_one
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.chat import Rendering


@attrs.frozen(kw_only=True, eq=False)
class NemotronH_Omni_Reasoning_V3Collator(BaseCollator):
    """Collates for Nemotron Omni: text, images, videos and sound.

    Its processor takes one video a call and does not tell what a placeholder stands for, so each
    item is processed by itself.

    Media keys: `pixel_values` (patches of all images, features), `image_grid_hw` (images, 2),
    `pixel_values_videos` (frames of all videos, 3, height, width), `input_features` (sounds,
    frames, mel bins), `input_features_mask` (sounds, frames).

    Source:
        transformers, `NemotronH_Omni_Reasoning_V3Processor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image_grid_hw"),
        "image_grid_hw": Concatenate(rows="image"),
        "pixel_values_videos": Concatenate(),
        "input_features": PadAndConcatenate(rows="audio"),
        "input_features_mask": PadAndConcatenate(rows="audio"),
    }
    default_stop_tokens = ("<|im_end|>",)

    @property
    def sampling_rate(self) -> int:
        """See `BaseCollator`."""
        return int(self.processor.audio_sampling_rate)

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        kinds = [span.kind for span in rendering.media]
        return process_one_by_one(
            self.processor,
            [self.placeholders[kind] for kind in kinds],
            kinds,
            media,
            self.media_joins,
            # one video a call, whose facts it takes bare instead of in a list
            [
                {"videos_kwargs": {"video_metadata": item.metadata()}} if kind == "video" else {}
                for kind, item in zip(kinds, media, strict=True)
            ],
        )
