"""Converting images of any mode to RGB with 8 bits per channel."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.depth import (
    UPPER_BITS,
    GrayRange,
    check_upper_bits,
    gray_range_of,
)

Colour = str | tuple[int, int, int]

_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_MODES_WITH_TRANSPARENT_COLOUR = frozenset({"1", "L", "P", "RGB"})
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


def as_rgb(
    image: Image.Image,
    name: str,
    *,
    background: Colour,
    gray_range: GrayRange | None,
    where: str,
) -> Image.Image:
    """Converts a loaded image to RGB, with transparency filled.

    Args:
        image: A loaded image.
        name: The image's name in errors.
        background: The colour behind transparent pixels.
        gray_range: The values of black and white of images with more than 8 bits, or `None` for
            what their file declares.
        where: The path inside the sample, for errors.

    Returns:
        An image of mode RGB; the same object if it already is one without transparency.

    Raises:
        MediaError: If the range of the pixels is unknown or exceeds the depth.
    """
    if image.mode in _SIXTEEN_BIT_MODES or (image.mode == "F" and gray_range is not None):
        image = _as_eight_bit(image, name, gray_range, where)
    if image.info.get(UPPER_BITS):
        check_upper_bits(image, name, stated=gray_range, where=where)
    if image.mode == "F":
        raise MediaError(
            f"{name} has float pixels (mode F), whose range is not known; set "
            "LocalMedia(gray_range=...) to the values of black and white, or scale them to 0..255 "
            "and pass Image.fromarray(array.astype('uint8'))",
            where=where,
        )
    has_colour_key = image.mode in _MODES_WITH_TRANSPARENT_COLOUR and "transparency" in image.info
    palette = image.palette if image.mode == "P" else None
    if has_colour_key or image.mode in _ALPHA_MODES or (palette and palette.mode.endswith("A")):
        return _fill_transparency(image, background)
    return image if image.mode == "RGB" else image.convert("RGB")


def _fill_transparency(image: Image.Image, background: Colour) -> Image.Image:
    # Pillow has no direct way from premultiplied grey to RGBA
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _as_eight_bit(
    image: Image.Image, name: str, gray_range: GrayRange | None, where: str
) -> Image.Image:
    """A greyscale image of more than 8 bits as one of 8 bits."""
    values = np.asarray(image)
    values = values.astype(np.float64 if image.mode == "F" else np.int64)
    highest = values.max()
    if image.mode == "I" and gray_range is None and 0 < highest <= 0xFF:
        raise MediaError(
            f"{name} has integer pixels up to {highest} (mode I), whose white may be 255 or 65535; "
            "set LocalMedia(gray_range=(0, ...)) to the value of white, or pass "
            "Image.fromarray(array.astype('uint8')) if it is 255",
            where=where,
        )
    black, white = gray_range_of(image, values, name, stated=gray_range, where=where)
    # adding half rounds to the nearest
    scaled = np.floor((values - black) * 255 / (white - black) + 0.5)
    gray = Image.fromarray(scaled.astype(np.uint8))
    if "transparency" in image.info:
        opaque = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        gray.putalpha(Image.fromarray(opaque))
    return gray
