"""Which value is white in an image of more than eight bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmcollate.errors import MediaError

SIGNIFICANT_BITS = "vlmcollate significant bits"
"""Where the depth that a PNG file declares is kept in the image's info."""
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281
_DOUBTFUL_BITS = 14


def png_significant_bits(data: bytes) -> int | None:
    """The greatest depth that the chunk sBIT of a PNG file declares."""
    start = 8
    while start + 12 <= len(data):
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        if kind == b"sBIT":
            return max(data[start + 8 : start + 8 + size], default=None)
        if kind == b"IDAT":  # sBIT stands before the pixels
            return None
        start += size + 12
    return None


def white_of(
    image: Image.Image,
    values: npt.NDArray[np.int64],
    name: str,
    *,
    significant_bits: int | None,
    where: str,
) -> int:
    """The value that stands for white.

    Args:
        image: The image, of which the metadata is read.
        values: Its pixels, from 0 to 65535.
        name: What to call it in errors.
        significant_bits: The depth that the user states, or `None`.
        where: The place in the sample, for errors.

    Raises:
        MediaError: If the pixels exceed the depth, or if it is declared nowhere and they would fit
            fewer bits.
    """
    if significant_bits is not None:
        white: int | None = (1 << significant_bits) - 1
    else:
        white = _declared(image)
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
            "LocalMedia(significant_bits=...), 16 if they count to 65535",
            where=where,
        )
    return 0xFFFF if white is None else white


def _declared(image: Image.Image) -> int | None:
    """White, as the file declares it by a depth or a highest value."""
    bits = image.info.get(SIGNIFICANT_BITS)
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        highest = _number(tags.get(_MAX_SAMPLE_VALUE))
        if highest:
            return min(highest, 0xFFFF)
        stored = _number(tags.get(_BITS_PER_SAMPLE))
        bits = stored if stored and stored < 16 else None  # 16 are stored, whatever they hold
    return (1 << bits) - 1 if isinstance(bits, int) and 0 < bits <= 16 else None


def _number(value: object) -> int | None:
    """A tag's number, alone or first of several."""
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None
