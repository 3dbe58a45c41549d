"""Processing images that become a grid of patches, one token per merged patch."""

from __future__ import annotations

from vlmcollate.media.processing.per_item import process_per_item
from vlmcollate.media.processing.request import MediaRequest
from vlmcollate.media.processing.resizing import RESIZED
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.media.processing.together import process_together


def process_patch_grids(request: MediaRequest) -> ProcessedMedia:
    """Processes media for a model whose placeholder repeats once per merged patch.

    Images alone go to the image processor: the processor around it would tokenize all placeholders
    only to count them. Other media, and samples with images of their own size, go to the processor.

    Args:
        request: The media of one sample; the image processor returns `image_grid_thw`.

    Source:
        transformers, `Qwen2VLImageProcessor` and `Qwen2_5_VLProcessor.replace_image_token`.
    """
    if any(kind != "image" for kind in request.kinds):
        return process_together(request)
    for image in request.items:
        if RESIZED in getattr(image, "info", ()):  # a tensor has none
            return process_per_item(request)
    image_processor = request.processor.image_processor
    output = image_processor(images=list(request.items), do_convert_rgb=False, return_tensors="pt")
    counts = output["image_grid_thw"].prod(-1) // image_processor.merge_size**2
    return ProcessedMedia(
        replacements=tuple(request.processor.image_token * count for count in counts.tolist()),
        tensors=dict(output),
    )
