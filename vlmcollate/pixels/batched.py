"""The pixels of a batch as bytes, until they are on the accelerator.

Shapes: N rows of a joined media tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.pixels.no_tensor import NoTensor
from vlmcollate.pixels.table import PixelTable


@attrs.frozen(eq=False, repr=False)
class PixelBytes(NoTensor):
    """Pixels of a batch as bytes, a quarter of their size, which no model takes by accident.

    This is not a tensor: every use as one raises `UnfinishedPixelsError`, a comparison with another
    object as well. It moves to a device and to pinned memory as a tensor does, and passes from a
    DataLoader worker in shared memory.
    `finish_pixels` makes a model take it; `finished` returns the pixels as floats.

    Attributes:
        values: (N, ...) uint8, 0 in the padding.
        table: What the processor makes of each byte.
        extents: (N, axes after the first) int64, the size of each row without its padding; `None`
            if no row is padded.
        fill: The value of the padding.
    """

    values: Tensor
    table: PixelTable
    extents: Tensor | None = None
    fill: float = 0.0

    def finished(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Returns the pixels as the processor makes them.

        Args:
            device: The device of the result, on which bytes become floats; that of the bytes by
                default.
            dtype: The dtype of the result; the processor's by default.
        """
        pixels = self.table(self.values.to(device, non_blocking=True), dtype)
        if self.extents is None:
            return pixels
        for axis, size in enumerate(self.values.shape[1:], 1):
            repeats = pixels.shape[axis] // size if size else 1
            ends = self.extents[:, axis - 1].to(pixels.device) * repeats
            is_padding = torch.arange(size * repeats, device=pixels.device) >= ends[:, None]
            shape = [len(pixels), *(1,) * (pixels.ndim - 1)]
            shape[axis] = size * repeats
            pixels.masked_fill_(is_padding.view(shape), self.fill)
        return pixels

    def split(self, sizes: Sequence[int]) -> list[PixelBytes]:
        """Returns consecutive rows, as many as each size says."""
        values = torch.split(self.values, list(sizes))
        extents: Sequence[Tensor | None] = [None] * len(values)
        if self.extents is not None:
            extents = torch.split(self.extents, list(sizes))
        return [
            attrs.evolve(self, values=v, extents=e) for v, e in zip(values, extents, strict=True)
        ]

    @property
    def shape(self) -> torch.Size:
        """The shape of the finished pixels."""
        return torch.Size(self.table.shape(self.values))

    @property
    def device(self) -> torch.device:
        """The device of the bytes."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """The size of the bytes."""
        return self.values.nbytes

    def numel(self) -> int:
        """Returns the number of the finished pixels' values."""
        return self.shape.numel()

    def to(self, *args: Any, **options: Any) -> PixelBytes:
        """Returns the bytes on another device; takes what `Tensor.to` does, except for a dtype."""
        given = (*args, *options.values())
        if any(isinstance(value, torch.dtype | Tensor) for value in given):
            self._refuse("to")
        return attrs.evolve(self, values=self.values.to(*args, **options))

    def pin_memory(self, *args: Any) -> PixelBytes:
        """Returns the bytes in pinned memory."""
        return attrs.evolve(self, values=self.values.pin_memory(*args))

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        padded = "" if self.extents is None else ", padded"
        return f"PixelBytes(shape={tuple(self.shape)}, device={self.device}{padded})"
