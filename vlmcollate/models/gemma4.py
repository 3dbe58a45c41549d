"""Gemma 4."""

from __future__ import annotations

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.encode.thinking_prefix import ThinkingPrefix
from vlmcollate.family import Family, NotPackable, TokenTypes
from vlmcollate.media import Concatenate, PadAndConcatenate
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class Gemma4Collator(BaseCollator):
    """Collates for Gemma 4: text, images, videos and audio.

    Media keys: `pixel_values` (images, patches, features) and `image_position_ids` (images,
    patches, 2) padded with -1; `pixel_values_videos` and `video_position_ids`, the same per frame;
    `num_frames_per_video` (videos,); `input_features` (audio items, frames, mel bins) and
    `input_features_mask` (audio items, frames) bool, padded to the longest item.

    Args:
        thinking_prefix: The thinking block that begins every answer of the larger checkpoints.

    Source:
        transformers, `Gemma4Processor`.
    """

    family = Family(
        joins={
            "pixel_values": PadAndConcatenate(rows="image"),
            "image_position_ids": PadAndConcatenate(value=-1, rows="image"),
            "pixel_values_videos": PadAndConcatenate(rows="num_frames_per_video"),
            "video_position_ids": PadAndConcatenate(value=-1, rows="num_frames_per_video"),
            "num_frames_per_video": Concatenate(rows="video"),
            "input_features": PadAndConcatenate(rows="audio"),
            "input_features_mask": PadAndConcatenate(rows="audio"),
        },
        stop_tokens=("<turn|>", "<|tool_response>"),  # a tool's result begins with the latter
        token_types=TokenTypes("mm_token_type_ids"),
        exact_token_counts=frozenset({"image", "video"}),
        packing=NotPackable("whether its images attend bidirectionally depends on the layer"),
    )

    thinking_prefix: ThinkingPrefix | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(ThinkingPrefix)),
    )

    def __attrs_post_init__(self) -> None:
        """See `BaseCollator`."""
        super().__attrs_post_init__()
        if self.thinking_prefix is not None:
            self.thinking_prefix.check(self.processor.tokenizer)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        """See `BaseCollator`."""
        if self.thinking_prefix is None:
            return sample
        return self.thinking_prefix(sample, self.processor.tokenizer)
