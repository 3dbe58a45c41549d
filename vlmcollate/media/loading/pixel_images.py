"""RGB images whose pixels are an array, as decoders return them and processors take them.

Shapes: H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


class PixelImage(Image.Image):
    """An RGB image that keeps its pixels in an array until Pillow needs them in its own memory.

    NumPy and torch read the array itself. Like an image file, it is loaded by the first method that
    works on Pillow's memory, and is an ordinary image from then on.

    Args:
        pixels: (H, W, 3) uint8, contiguous, which nothing else may write to.
        info: The metadata of the image.
    """

    _pixels: Pixels | None = None  # of an image that was unpickled

    def __init__(self, pixels: Pixels, info: Mapping[str | tuple[int, int], Any]) -> None:
        super().__init__()
        # a plugin of Pillow sets the same two
        self._mode = "RGB"
        self._size = pixels.shape[1], pixels.shape[0]
        self.info = dict(info)
        self._pixels = pixels

    def load(self) -> Any:
        """Moves the pixels into Pillow's memory, and returns what Pillow's own method does."""
        pixels = self._pixels
        if pixels is not None:
            self.im = Image.fromarray(pixels).im
            self._pixels = None  # which a change of the image would not reach
        return super().load()

    @property
    def pixels(self) -> Pixels | None:
        """The array, or `None` if the pixels are in Pillow's memory."""
        return self._pixels

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The read-only array, without a copy."""
        pixels = self._pixels
        if pixels is None:
            return super().__array_interface__
        shown = pixels.view()
        shown.flags.writeable = False
        # the array as data, and not its address: it may outlive the image
        return {"shape": pixels.shape, "typestr": "|u1", "version": 3, "data": shown}
