"""Media that a processor cuts into a grid of patches, one token for each merged patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from vlmcollate.media.processing.result import ProcessedMedia


def process_patch_grids(processor: Any, images: Sequence[Image.Image]) -> ProcessedMedia:
    """Processes images for a model whose placeholder stands once for each merged patch.

    The image processor is called by itself: the processor around it would tokenize all the
    placeholders only to count them.

    Args:
        processor: A processor whose image processor returns `image_grid_thw`.
        images: RGB images, at least one.

    Source:
        transformers, `Qwen2VLImageProcessor` and `Qwen2_5_VLProcessor.replace_image_token`.
    """
    image_processor = processor.image_processor
    output = image_processor(images=list(images), do_convert_rgb=False, return_tensors="pt")
    counts = output["image_grid_thw"].prod(-1) // image_processor.merge_size**2
    return ProcessedMedia(
        replacements=tuple(processor.image_token * count for count in counts.tolist()),
        tensors=dict(output),
    )
