"""Phi-4-multimodal, with the processor of transformers."""

from __future__ import annotations

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family
from vlmcollate.media import (
    Concatenate,
    MediaRequest,
    PadAndConcatenate,
    ProcessedMedia,
    process_together,
)


def _process(request: MediaRequest) -> ProcessedMedia:
    """Calls the processor, and adds the audio mask that it omits for one item."""
    processed = process_together(request)
    features = processed.tensors.get("audio_input_features")
    if features is None or "audio_attention_mask" in processed.tensors:
        return processed
    extractor = request.processor.audio_processor
    pairs = zip(request.kinds, request.items, strict=True)
    audio = [item for kind, item in pairs if kind == "audio"]
    frames = [(len(item) - extractor.win_length) // extractor.hop_length + 1 for item in audio]
    lengths = torch.tensor(frames)[:, None] * extractor.audio_feat_stride
    mask = torch.arange(features.shape[1]) < lengths
    return attrs.evolve(processed, tensors={**processed.tensors, "audio_attention_mask": mask})


class Phi4MultimodalCollator(BaseCollator):
    """Collates for Phi-4-multimodal: text, images and audio.

    Media keys: `image_pixel_values` (images, maximum tiles, 3, height, width), `image_sizes`
    (images, 2), `image_attention_mask` (images, maximum tiles, patches, patches) float32;
    `audio_input_features` (audio items, frames, mel bins), `audio_embed_sizes` (audio items,),
    `audio_attention_mask` (audio items, frames) bool, which the processor omits for one item.

    Source:
        transformers, `Phi4MultimodalProcessor`.
    """

    family = Family(
        joins={
            "image_pixel_values": PadAndConcatenate(rows="image"),
            "image_sizes": Concatenate(rows="image"),
            "image_attention_mask": PadAndConcatenate(rows="image", value=1),
            "audio_input_features": PadAndConcatenate(rows="audio"),
            "audio_embed_sizes": Concatenate(rows="audio"),
            "audio_attention_mask": PadAndConcatenate(rows="audio"),
        },
        stop_tokens=("<|end|>",),
        process=_process,
    )
