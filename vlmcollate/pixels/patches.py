"""Cutting images of bytes into the flat patches of Qwen-VL's image processor.

Shapes: B images, C channels, H rows, W columns; a patch of P rows and P columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def cuts_as_qwen(part: Any) -> bool:
    """Returns whether an image processor cuts patches by the method of Qwen2-VL's."""
    from transformers import Qwen2VLImageProcessor

    known = getattr(Qwen2VLImageProcessor, "patchify", None)
    return known is not None and getattr(type(part), "patchify", None) is known


def cut_patches(
    images: Tensor, patch_size: int, merge_size: int, temporal_patch_size: int
) -> tuple[Tensor, int, int]:
    """Cuts images into patches of one frame, moving a row of a patch at a time instead of a byte.

    Args:
        images: (B, C, H, W) uint8.
        patch_size: P, which divides H and W.
        merge_size: The number of patches on each side that become one token.
        temporal_patch_size: The number of frames, all of which are the image.

    Returns:
        The patches (B, H W / P^2, C P^2) uint8, and their number along H and W.

    Source:
        transformers, `Qwen2VLImageProcessor.patchify`.
    """
    del temporal_patch_size  # the frames are repeated when the batch is made
    count, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    run = np.dtype((np.void, patch_size))
    pixels = images.contiguous().numpy().view(run)
    merged = rows // merge_size, merge_size, patch_size, columns // merge_size, merge_size
    source = pixels.reshape(count, channels, *merged).transpose(0, 2, 5, 3, 6, 1, 4)
    flat = np.ascontiguousarray(source).view(np.uint8).reshape(count, rows * columns, -1)
    return torch.from_numpy(flat), rows, columns
