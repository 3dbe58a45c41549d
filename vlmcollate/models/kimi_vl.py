"""Kimi-VL, whose processor is remote code."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable
from vlmcollate.media import Concatenate, MediaRequest, ProcessedMedia
from vlmcollate.packing.token_mixing import TokenMixing


def _process(request: MediaRequest) -> ProcessedMedia:
    """Calls the image processor; one token stands for each merged patch."""
    images = request.processor.image_processor
    output = images(images=list(request.items), return_tensors="pt")
    rows, columns = images.merge_kernel_size
    counts = output["image_grid_hws"].prod(-1) // (rows * columns)
    texts = zip(request.texts, counts.tolist(), strict=True)
    return ProcessedMedia(
        replacements=tuple(text * count for text, count in texts), tensors=dict(output)
    )


class KimiVLCollator(BaseCollator):
    """Collates for Kimi-VL: text and images.

    Media keys: `pixel_values` (patches, 3, height, width), `image_grid_hws` (images, 2).

    Source:
        The remote code of moonshotai/Kimi-VL-A3B-Instruct, `KimiVLProcessor`.
    """

    family = Family(
        joins={
            "pixel_values": Concatenate(rows="image_grid_hws"),
            "image_grid_hws": Concatenate(rows="image"),
        },
        stop_tokens=("<|im_end|>",),
        packing=Packable(
            token_mixing=TokenMixing(
                model="Kimi-VL",
                separates_by=frozenset({"lengths"}),
                why="the masks that its remote code takes are unknown",
            )
        ),
        kinds=frozenset({"image"}),  # its processor may have parts for videos
        process=_process,
    )
