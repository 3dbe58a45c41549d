"""Phi-4-multimodal, as transformers has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.media import Concatenate, PadAndConcatenate
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.prompt.chat import Rendering


@attrs.frozen(kw_only=True, eq=False)
class Phi4MultimodalCollator(BaseCollator):
    """Collates for Phi-4-multimodal: text, images and sound.

    Media keys: `image_pixel_values` (images, most tiles, 3, height, width), `image_sizes` (images,
    2), `image_attention_mask` (images, most tiles, patches, patches) float32;
    `audio_input_features` (sounds, frames, mel bins), `audio_embed_sizes` (sounds,),
    `audio_attention_mask` (sounds, frames) bool, which the processor leaves out for one sound.

    Source:
        transformers, `Phi4MultimodalProcessor`.
    """

    media_joins = {
        "image_pixel_values": PadAndConcatenate(rows="image"),
        "image_sizes": Concatenate(rows="image"),
        "image_attention_mask": PadAndConcatenate(rows="image"),
        "audio_input_features": PadAndConcatenate(rows="audio"),
        "audio_embed_sizes": Concatenate(rows="audio"),
        "audio_attention_mask": PadAndConcatenate(rows="audio"),
    }
    default_stop_tokens = ("<|end|>",)

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        processed = super().process_media(rendering, media)
        features = processed.tensors.get("audio_input_features")
        if features is None or "audio_attention_mask" in processed.tensors:
            return processed
        extractor = self.processor.audio_processor
        sounds = [m for span, m in zip(rendering.media, media, strict=True) if span.kind == "audio"]
        frames = [(len(m) - extractor.win_length) // extractor.hop_length + 1 for m in sounds]
        lengths = torch.tensor(frames)[:, None] * extractor.audio_feat_stride
        mask = torch.arange(features.shape[1]) < lengths
        return attrs.evolve(processed, tensors={**processed.tensors, "audio_attention_mask": mask})
