"""Turning the frames of a video as its display matrix demands.

Shapes: H rows, W columns.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmcollate.errors import MediaError

_SLACK = 50
"""The factor by which an entry is smaller than another if it is a rounded 0."""

Pixels = npt.NDArray[np.uint8]


def upright_pixels(pixels: Pixels, frame: Any, name: str, where: str) -> Pixels:
    """Turns and mirrors the pixels of a frame as its video demands.

    Args:
        pixels: (H, W, 3).
        frame: PyAV's frame, of which the display matrix is read.
        name: The video's name in errors.
        where: The path inside the sample, for errors.

    Returns:
        (H, W, 3) or (W, H, 3), the same pixels.

    Raises:
        MediaError: If the matrix turns the frame by another angle than a right one.
    """
    from av.sidedata.sidedata import Type

    entry = frame.side_data.get(Type.DISPLAYMATRIX)
    if entry is None:
        return pixels
    matrix = struct.unpack("=9i", bytes(entry))
    # x' = a x + c y, y' = b x + d y, with x to the right and y down
    a, b, perspective_x, c, d, perspective_y = matrix[:6]
    if not perspective_x and not perspective_y:
        if _are_zeros((b, c), (a, d)):
            return pixels[:: _step(d), :: _step(a)]
        if _are_zeros((a, d), (b, c)):
            return pixels.transpose(1, 0, 2)[:: _step(b), :: _step(c)]
    raise MediaError(
        f"{name} has the display matrix {matrix}, which turns its frames by no right angle; encode "
        "it again, for instance with FFmpeg, which turns them, or drop the sample",
        where=where,
    )


def _are_zeros(small: tuple[int, int], large: tuple[int, int]) -> bool:
    """Whether entries are 0 beside others that are not, but for rounding."""
    return min(map(abs, large)) > _SLACK * max(map(abs, small))


def _step(entry: int) -> int:
    """The step through an axis, backwards if it is mirrored."""
    return -1 if entry < 0 else 1
