"""Converting images of any mode to RGB with 8 bits per channel."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.depth import white_of

Colour = str | tuple[int, int, int]

_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_MODES_WITH_TRANSPARENT_COLOUR = frozenset({"1", "L", "P", "RGB"})
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


def as_rgb(
    image: Image.Image,
    name: str,
    *,
    background: Colour,
    significant_bits: int | None,
    where: str,
) -> Image.Image:
    """Converts a loaded image to RGB, with transparency filled.

    Args:
        image: A loaded image.
        name: The image's name in errors.
        background: The colour behind transparent pixels.
        significant_bits: The depth of images of 16 bits, or `None` for what their file declares.
        where: The path inside the sample, for errors.

    Returns:
        An image of mode RGB; the same object if it already is one without transparency.

    Raises:
        MediaError: If the range of the pixels is unknown or exceeds the depth.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        image = _as_eight_bit(image, name, significant_bits, where)
    if image.mode == "F":
        raise MediaError(
            f"{name} has float pixels (mode F), whose range is not known; scale them to 0..255 "
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
    image: Image.Image, name: str, significant_bits: int | None, where: str
) -> Image.Image:
    """A greyscale image of 16 bits as one of 8 bits."""
    values = np.asarray(image).astype(np.int64)
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > 0xFFFF:
        raise MediaError(
            f"{name} has integer pixels from {lowest} to {highest} (mode I), expected "
            "0..65535; scale them to 0..255 and pass Image.fromarray(array.astype('uint8'))",
            where=where,
        )
    if image.mode == "I" and significant_bits is None and 0 < highest <= 0xFF:
        raise MediaError(
            f"{name} has integer pixels from {lowest} to {highest} (mode I), whose white may be "
            "255 or 65535; pass Image.fromarray(array.astype('uint8')) if it is 255, or set "
            "LocalMedia(significant_bits=16) if it is 65535",
            where=where,
        )
    white = white_of(image, values, name, significant_bits=significant_bits, where=where)
    # adding half of white rounds to the nearest
    grey = Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
    if "transparency" in image.info:
        opaque = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opaque))
    return grey
