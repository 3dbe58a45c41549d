"""The values of black and white in greyscale images with more than 8 bits."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from PIL import Image

from vlmcollate.errors import MediaError

SIGNIFICANT_BITS = "vlmcollate significant bits"
"""The key of an image's info under which the depth that a PNG file declares is kept."""
UPPER_BITS = "vlmcollate upper bits"
"""The key in the info of an image of 8 bits that are the upper ones of 16-bit grey in its file."""
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281
_DOUBTFUL_BITS = 14


GrayRange = tuple[float, float]
"""The values of black and of white."""


def gray_range_of(
    image: Image.Image,
    values: npt.NDArray[Any],
    name: str,
    *,
    stated: GrayRange | None,
    where: str,
) -> GrayRange:
    """Finds the values that stand for black and for white.

    Args:
        image: The image, whose metadata is read.
        values: Its pixels (H, W).
        name: The image's name in errors.
        stated: The range that the user states, or `None` for the depth that the file declares.
        where: The path inside the sample, for errors.

    Returns:
        The range, 0 to 65535 if no depth is declared.

    Raises:
        MediaError: If pixels are outside of the range, or if no depth is declared and the pixels
            would fit into fewer bits.
    """
    lowest, highest = values.min(), values.max()
    white = _declared_white(image) if stated is None else None
    found: GrayRange = stated or (0, 0xFFFF if white is None else white)
    if not found[0] <= lowest <= highest <= found[1]:
        raise MediaError(
            f"{name} has values from {lowest:g} to {highest:g}, outside of its range of "
            f"{found[0]:g} to {found[1]:g}; set LocalMedia(gray_range=...) to the values of black "
            "and white, or scale the pixels and pass Image.fromarray(array.astype('uint8'))",
            where=where,
        )
    if stated is None and white is None and 0 < highest < 1 << _DOUBTFUL_BITS:
        raise MediaError(
            f"{name} has 16-bit pixels up to {highest}, which may be dark, or have a depth of "
            f"{int(highest).bit_length()} to {_DOUBTFUL_BITS} bits that the file does not declare; "
            "set LocalMedia(gray_range=(0, ...)) to the value of white, 65535 if it uses all bits",
            where=where,
        )
    return found


def check_upper_bits(
    image: Image.Image, name: str, *, stated: GrayRange | None, where: str
) -> None:
    """Refuses an image of which only the upper bits were decoded, if they may not be the grey.

    Args:
        image: A loaded image of mode RGBA, of 16-bit grey with alpha.
        name: The image's name in errors.
        stated: The range that the user states, or `None`.
        where: The path inside the sample, for errors.

    Raises:
        MediaError: If another range than that of 16 bits is stated, or if none is and the pixels
            would fit into fewer bits.
    """
    highest = image.getchannel(0).getextrema()[1]
    is_dark = isinstance(highest, int) and 0 < highest < 1 << (_DOUBTFUL_BITS - 8)
    if stated != (0, 0xFFFF) and (is_dark or stated is not None):
        raise MediaError(
            f"{name} has 16-bit grey with alpha, of which the upper 8 bits are decoded, up to "
            f"{highest} of 255, and no range of grey applies; set LocalMedia(gray_range=(0, "
            "65535)) if it uses all bits, or remove the alpha channel",
            where=where,
        )


def _declared_white(image: Image.Image) -> int | None:
    """White by the depth or the highest value that the file declares."""
    bits = image.info.get(SIGNIFICANT_BITS)
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        highest = _first_number(tags.get(_MAX_SAMPLE_VALUE))
        if highest:
            return min(highest, 0xFFFF)
        stored = _first_number(tags.get(_BITS_PER_SAMPLE))
        bits = stored if stored and stored < 16 else None  # 16 are stored, whatever they hold
    return (1 << bits) - 1 if isinstance(bits, int) and 0 < bits <= 16 else None


def _first_number(value: object) -> int | None:
    """A tag's number, or the first of several."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None
