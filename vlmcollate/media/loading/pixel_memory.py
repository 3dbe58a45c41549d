"""The pixels of an image as an array, with as few copies as Pillow allows.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from PIL import Image
from PIL.Image import core  # type: ignore[attr-defined]  # not in Pillow's types

from vlmcollate.media.loading.arrow_capsules import ArrowArray, address_in_capsule
from vlmcollate.media.loading.pixel_images import PixelImage, Pixels

_STRIP_BYTES = 1 << 18
"""The size of the strips in which large images are copied, so that they stay in the cache."""
_LARGE = 1 << 22
"""The number of bytes from which on strips are faster than one copy."""


def shared_pixels(image: Image.Image) -> Pixels | None:
    """Returns Pillow's own memory of an RGB image, which keeps four bytes of each pixel.

    Args:
        image: A loaded image of mode RGB.

    Returns:
        (H, W, 4) uint8, which must not be written to; the memory lives as long as the array. `None`
        if the memory is not in one piece, is not Pillow's, or is not exported by this Pillow.
    """
    if type(image).__array_interface__ is not Image.Image.__array_interface__:
        return None  # such as a PixelImage
    if core.get_alignment() != 1:
        return None
    image.load()
    if image.im.readonly:  # memory of others, with which Pillow before 13 crashes
        return None
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:
        return None
    column = ArrowArray.from_address(address_in_capsule(capsule, b"arrow_array"))
    width, height = image.size
    if (column.n_children, column.length, column.offset) != (1, width * height, 0):
        return None
    values = column.children[0].contents
    if (values.n_buffers, values.length, values.offset) != (2, 4 * width * height, 0):
        return None
    interface = {
        "data": (values.buffers[1], False),  # writable, as torch demands
        "shape": (height, width, 4),
        "typestr": "|u1",
        "version": 3,
    }
    return np.asarray(SimpleNamespace(__array_interface__=interface, capsule=capsule))


def pixels_of(image: Image.Image) -> Pixels:
    """Returns the pixels of an RGB image with at most one copy.

    Args:
        image: A loaded image of mode RGB.

    Returns:
        (H, W, 3) uint8, contiguous. It is the array of a `PixelImage`, so it must not be written
        to, and otherwise a copy.
    """
    pixels = image.pixels if isinstance(image, PixelImage) else None
    if pixels is not None:
        return pixels
    width, height = image.size
    if width * height * 3 < _LARGE:
        return np.asarray(image).copy()  # whose memory is writable, as torch demands
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_STRIP_BYTES // (width * 3), 1)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels
