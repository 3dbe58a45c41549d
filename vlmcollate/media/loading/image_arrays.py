"""Reading images that are passed as arrays of pixels.

Shapes: H rows, W columns, C channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.images import check_pixels
from vlmcollate.media.loading.pixel_images import PixelImage
from vlmcollate.media.loading.tensors import array_of

_CHANNELS = (3, 4)


def image_from_array(
    array: npt.NDArray[Any] | torch.Tensor, *, max_pixels: int, where: str
) -> Image.Image:
    """Makes a Pillow image of uint8 pixels.

    Args:
        array: (H, W), (H, W, 3) or (H, W, 4) uint8; or channels first, (3, H, W) or (4, H, W), if
            only the first axis can be the channels.
        max_pixels: The maximum number of pixels.
        where: The path inside the sample, for errors.

    Returns:
        An image of mode L, RGB or RGBA; of mode RGB with a copy of the pixels, which the caller
        may change later.

    Raises:
        MediaError: If the array has another dtype or shape, is empty or too large.
    """
    _check_uint8(array, where)
    pixels = array_of(array, "an image", where) if isinstance(array, torch.Tensor) else array
    pixels = _channels_last(pixels, where)
    check_pixels((pixels.shape[1], pixels.shape[0]), "the array", max_pixels, where)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return PixelImage(np.array(pixels, order="C"), {})
    return Image.fromarray(np.ascontiguousarray(pixels))


def _check_uint8(array: npt.NDArray[Any] | torch.Tensor, where: str) -> None:
    if array.dtype in (torch.uint8, np.dtype(np.uint8)):
        return
    kind = "tensor.to(torch.uint8)" if isinstance(array, torch.Tensor) else "array.astype('uint8')"
    raise MediaError(
        f"an image array has dtype {array.dtype}, expected uint8 from 0 to 255; scale it (0..1 by "
        f"255, 0..65535 by 1 / 257, 0..4095 by 255 / 4095, bool by 255), round, clip, then convert "
        f"by {kind}",
        where=where,
    )


def _channels_last(pixels: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    shape = pixels.shape
    if len(shape) == 2:
        return pixels
    if len(shape) != 3 or (shape[0] not in _CHANNELS and shape[2] not in _CHANNELS):
        raise MediaError(
            f"an image array has shape {shape}, expected (H, W), (H, W, 3), (H, W, 4) or "
            "(3, H, W); pass one image at a time, with its axes in one of these orders",
            where=where,
        )
    if shape[0] in _CHANNELS and shape[2] in _CHANNELS:
        raise MediaError(
            f"an image array has shape {shape}, whose first and last axis could both be the "
            "channels; pass Image.fromarray(array) if they are last, or "
            "Image.fromarray(array.transpose(1, 2, 0)) if they are first",
            where=where,
        )
    return pixels if shape[2] in _CHANNELS else pixels.transpose(1, 2, 0)
