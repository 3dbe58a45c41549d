"""Separating the channels of images whose pixels take four bytes each.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor


def with_fourth_channel(images: Tensor) -> Tensor | None:
    """Returns a view of images with the fourth byte of each pixel, if it has one.

    Args:
        images: (..., 3, H, W) of any strides, or another tensor.

    Returns:
        (..., 4, H, W), or `None` if the pixels do not take four bytes each.
    """
    strides = images.stride()
    if images.shape[-3:-2] != (3,) or (strides[-3], strides[-1]) != (1, 4):
        return None
    return images.as_strided((*images.shape[:-3], 4, *images.shape[-2:]), strides)


def pixel_words(images: Tensor) -> npt.NDArray[np.uint32] | None:
    """Returns images as a number a pixel, with the first channel as its lowest byte.

    Args:
        images: (..., 3, H, W) uint8.

    Returns:
        (..., H, W), or `None` as in `with_fourth_channel`.
    """
    whole = with_fourth_channel(images)
    return None if whole is None else whole.movedim(-3, -1).numpy().view("<u4")[..., 0]


def write_channels(words: npt.NDArray[np.uint32], planes: npt.NDArray[np.uint8]) -> None:
    """Writes the channels of pixels one after the other, which takes a third of byte by byte.

    A number that begins n bytes later has channel n as its lowest byte, to which NumPy casts faster
    than it shifts.

    Args:
        words: What `pixel_words` returned.
        planes: Contiguous memory for (..., 3, H, W).
    """
    count = words.shape[-2] * words.shape[-1]
    images = np.ascontiguousarray(words).reshape(-1, count)
    for image, channels in zip(images, planes.reshape(-1, 3, count), strict=True):
        pixels = image.view(np.uint8)
        for n, plane in enumerate(channels):
            plane[:-1] = np.ndarray(count - 1, "<u4", pixels, n)
            plane[-1] = pixels[n - 4]  # of which a number would end outside
