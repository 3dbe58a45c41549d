"""Qwen3-Omni."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate, PadAndConcatenate, process_omni
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.chat import Rendering
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True, eq=False)
class Qwen3OmniMoeCollator(BaseCollator):
    """Collates for Qwen3-Omni's thinker: text, images, videos and sound.

    Media keys: `pixel_values` and `pixel_values_videos` (patches, features), `image_grid_thw` and
    `video_grid_thw` (items, 3), `video_second_per_grid` (videos,) float32, `input_features`
    (sounds, mel bins, frames), `feature_attention_mask` (sounds, frames).

    Args:
        use_audio_in_video: Whether the model hears a video's own sound between its frames. It
            counts as one of the sample's sounds.

    Source:
        transformers, `Qwen3OmniMoeProcessor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image_grid_thw"),
        "image_grid_thw": Concatenate(rows="image"),
        "pixel_values_videos": Concatenate(rows="video_grid_thw"),
        "video_grid_thw": Concatenate(rows="video"),
        "video_second_per_grid": Concatenate(rows="video"),
        "input_features": PadAndConcatenate(rows="audio"),
        "feature_attention_mask": PadAndConcatenate(rows="audio"),
    }
    exact_token_counts = ("image", "video")
    default_stop_tokens = ("<|im_end|>",)
    no_packs_because = "the positions of its media in a pack are not known"

    use_audio_in_video: bool = attrs.field(default=False, validator=an_instance_of(bool))

    @property
    def soundtrack_sampling_rate(self) -> int | None:
        """See `BaseCollator`."""
        return self.sampling_rate if self.use_audio_in_video else None

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        kinds = [span.kind for span in rendering.media]
        return process_omni(self.processor, kinds, media, self.media_joins)
