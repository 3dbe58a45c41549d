"""The value that stands for white in images with more than 8 bits per channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmcollate.errors import MediaError

SIGNIFICANT_BITS = "vlmcollate significant bits"
"""The key of an image's info under which the depth that a PNG file declares is kept."""
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281
_DOUBTFUL_BITS = 14


def white_of(
    image: Image.Image,
    values: npt.NDArray[np.int64],
    name: str,
    *,
    significant_bits: int | None,
    where: str,
) -> int:
    """Finds the value that stands for white.

    Args:
        image: The image, whose metadata is read.
        values: Its pixels (H, W), int64, from 0 to 65535.
        name: The image's name in errors.
        significant_bits: The depth in bits, or `None` for what the file declares.
        where: The path inside the sample, for errors.

    Returns:
        The value of white, 65535 if no depth is declared.

    Raises:
        MediaError: If the pixels exceed the depth, or if no depth is declared and the pixels would
            fit into fewer bits.
    """
    if significant_bits is not None:
        white: int | None = (1 << significant_bits) - 1
    else:
        white = _declared_white(image)
    highest = int(values.max())
    if white is not None and highest > white:
        raise MediaError(
            f"{name} has values up to {highest}, above the {white} of its declared depth; correct "
            "significant_bits, or drop the sample",
            where=where,
        )
    if white is None and 0 < highest < 1 << _DOUBTFUL_BITS:
        raise MediaError(
            f"{name} has 16-bit pixels up to {highest}, which may be dark, or have a depth of "
            f"{highest.bit_length()} to {_DOUBTFUL_BITS} bits that the file does not declare; set "
            "LocalMedia(significant_bits=...), 16 if white is 65535",
            where=where,
        )
    return 0xFFFF if white is None else white


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
