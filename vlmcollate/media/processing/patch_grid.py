"""Processing images that become a grid of patches, one token per merged patch.

Shapes: B images, C channels, H rows, W columns; a patch of P rows and P columns.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmcollate.media.processing.overrides import is_changed
from vlmcollate.media.processing.per_item import process_per_item
from vlmcollate.media.processing.planes import pixel_words, write_channels
from vlmcollate.media.processing.request import MediaRequest
from vlmcollate.media.processing.resizing import RESIZED
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.media.processing.together import process_together


def process_patch_grids(request: MediaRequest) -> ProcessedMedia:
    """Processes media for a model whose placeholder repeats once per merged patch.

    Images alone go to the image processor: the processor around it would tokenize all placeholders
    only to count them. Other media, samples with images of their own size, and all media of a
    processor with methods of its own go to the processor.

    Args:
        request: The media of one sample; the image processor returns `image_grid_thw`.

    Source:
        transformers, `Qwen2VLImageProcessor` and `Qwen2_5_VLProcessor.replace_image_token`.
    """
    # a copy without tokens checks none
    is_own = is_changed(request.processor, but={"_check_special_mm_tokens"})
    if is_own or any(kind != "image" for kind in request.kinds):
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


def cuts_as_qwen(kind: Hashable) -> bool:
    """Returns whether a class of image processors cuts patches by the method of Qwen2-VL's."""
    from transformers import Qwen2VLImageProcessor

    known = getattr(Qwen2VLImageProcessor, "patchify", None)
    return known is not None and getattr(kind, "patchify", None) is known


def cut_patches(
    images: Tensor, patch_size: int, merge_size: int, temporal_patch_size: int
) -> tuple[Tensor, int, int]:
    """Cuts images into patches of one frame, moving a row of a patch at a time instead of a byte.

    The channels of each row of tokens are separated in memory that stays in the cache.

    Args:
        images: (B, C, H, W) uint8, of any strides.
        patch_size: P, which divides H and W.
        merge_size: The number of patches on each side that become one token.
        temporal_patch_size: The number of frames, all of which are the image.

    Returns:
        The patches (B, H W / P^2, C P^2) uint8, and their number along H and W.

    Raises:
        ValueError: The images are no bytes, as where a subclass calculates in floats.

    Source:
        transformers, `Qwen2VLImageProcessor.patchify`.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"patches are cut from bytes, found {images.dtype}")
    del temporal_patch_size  # the frames are repeated when the batch is made
    count, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    bands, tokens = rows // merge_size, columns // merge_size
    run = np.dtype((np.void, patch_size))
    patches = np.empty((count, bands, tokens, merge_size, merge_size, channels, patch_size), run)
    planes = np.empty((channels, merge_size, patch_size, tokens, merge_size), run)
    pixels = planes.view(np.uint8).reshape(channels, -1, width)
    words = pixel_words(images)
    source: npt.NDArray[Any]
    if words is None:
        source = images.numpy().reshape(count, channels, bands, -1, width)
    else:
        source = words.reshape(count, bands, -1, width)
    for image, band in np.ndindex(count, bands):
        if words is None:
            pixels[...] = source[image, :, band]
        else:
            write_channels(source[image, band], pixels)
        patches[image, band] = planes.transpose(3, 1, 4, 0, 2)
    flat = patches.view(np.uint8).reshape(count, rows * columns, -1)
    return torch.from_numpy(flat), rows, columns
