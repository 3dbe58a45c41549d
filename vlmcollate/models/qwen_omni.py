"""Qwen2.5-Omni and Qwen3-Omni."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, NotPackable
from vlmcollate.media import Concatenate, PadAndConcatenate, grid_joins, process_omni
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True, eq=False)
class Qwen2_5OmniCollator(BaseCollator):
    """Collates for Qwen2.5-Omni's thinker: text, images, videos and audio.

    Media keys: `pixel_values` and `pixel_values_videos` (patches, features), `image_grid_thw` and
    `video_grid_thw` (items, 3), `video_second_per_grid` (videos,) float32, `input_features`
    (audio items, mel bins, frames), `feature_attention_mask` (audio items, frames).

    Args:
        use_audio_in_video: Whether to place a video's own audio between its frames. It counts as
            one of the sample's audio items. A video part may set it for itself.

    Source:
        transformers, `Qwen2_5OmniProcessor`.
    """

    family = Family(
        joins=grid_joins(
            video_second_per_grid=Concatenate(rows="video"),
            input_features=Concatenate(rows="audio"),
            feature_attention_mask=Concatenate(rows="audio"),
        ),
        stop_tokens=("<|im_end|>",),
        exact_token_counts=frozenset({"image", "video"}),
        packing=NotPackable("the positions of its media in a pack are unknown"),
        process=process_omni,
    )

    use_audio_in_video: bool = attrs.field(default=False, validator=an_instance_of(bool))

    @property
    def takes_soundtracks(self) -> bool:
        """See `BaseCollator`."""
        return True

    @property
    def soundtrack_sampling_rate(self) -> int | None:
        """See `BaseCollator`."""
        return self.traits.sampling_rate if self.use_audio_in_video else None


class Qwen3OmniMoeCollator(Qwen2_5OmniCollator):
    """Collates for Qwen3-Omni's thinker, as for Qwen2.5-Omni, with audio padded to the longest.

    Source:
        transformers, `Qwen3OmniMoeProcessor`.
    """

    family = attrs.evolve(
        Qwen2_5OmniCollator.family,
        joins={
            **Qwen2_5OmniCollator.family.joins,
            "input_features": PadAndConcatenate(rows="audio"),
            "feature_attention_mask": PadAndConcatenate(rows="audio"),
        },
    )
