"""Pixels as bytes, and the table that makes of them what the processor would.

Shapes: C channels, N rows of a media tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor

Channels = Literal["flat", "first", "last"]
CHANNELS: tuple[Channels, ...] = get_args(Channels)
_BLOCK = 1 << 17
"""The number of values that are converted at a time, so that they stay in the cache."""
_ACCELERATOR_BLOCK = 1 << 24
"""That number on other devices, where each operation has to be launched."""


@attrs.frozen(eq=False)
class PixelTable:
    """What a processor's rescaling and normalisation make of each byte.

    Args:
        values: (C, 256), of the dtype of the processor's own output.
        channels: Where the channels of a tensor are: `"first"`, before height and width; `"last"`;
            or `"flat"`, C equal runs of the last axis, as in a flattened patch.
        mean: (C,) float32, to be subtracted from a byte; `None` if the values are looked up.
        deviation: (C,) float32, by which the difference is divided.
        repeats: The number of times that the values of a channel follow each other in a flattened
            patch, as the frames of a still image do.
    """

    values: Tensor
    channels: Channels
    mean: Tensor | None = None
    deviation: Tensor | None = None
    repeats: int = 1

    def __eq__(self, other: object) -> bool:
        """Returns whether two tables make the same of every tensor."""
        return self is other or (
            isinstance(other, PixelTable)
            and (self.channels, self.repeats) == (other.channels, other.repeats)
            and self.values.dtype == other.values.dtype
            and torch.equal(self.values, other.values)
        )

    def __hash__(self) -> int:
        return hash(
            (self.channels, self.repeats, self.values.dtype, tuple(self.values[:, 255].tolist()))
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the table as numbers, since each tensor that a worker sends takes a file."""
        return PixelTable.from_dict, (self.to_dict(),)

    def __call__(self, pixels: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Returns the processor's values for bytes.

        Args:
            pixels: A uint8 tensor whose channels are where the table expects them, on any device.
            dtype: The dtype of the result; the table's by default.
        """
        kind = dtype or self.values.dtype
        out = torch.empty(self.shape(pixels), dtype=kind, device=pixels.device)
        self.write(pixels, out)
        return out

    @classmethod
    def computed(cls, mean: Tensor, deviation: Tensor, channels: Channels) -> PixelTable:
        """Returns the table of (byte - mean) / deviation, in float32.

        Args:
            mean: (C,) float32.
            deviation: (C,) float32.
            channels: Where the channels of a tensor are.
        """
        values = (torch.arange(256).float() - mean[:, None]) / deviation[:, None]
        return cls(values, channels, mean, deviation)

    def to_dict(self) -> dict[str, Any]:
        """Returns the table as JSON values, which `from_dict` reads without loss."""
        if self.mean is not None and self.deviation is not None:
            numbers = {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
            return {"channels": self.channels, "repeats": self.repeats, **numbers}
        dtype = str(self.values.dtype).removeprefix("torch.")
        layout = {"channels": self.channels, "repeats": self.repeats}
        return {**layout, "dtype": dtype, "values": self.values.tolist()}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> PixelTable:
        """Restores a table from `to_dict`."""
        if "mean" in facts:
            mean, deviation = (
                torch.tensor(facts[name], dtype=torch.float32) for name in ("mean", "deviation")
            )
            found = cls.computed(mean, deviation, facts["channels"])
            return attrs.evolve(found, repeats=facts["repeats"])
        values = torch.tensor(facts["values"], dtype=getattr(torch, facts["dtype"]))
        return cls(values, facts["channels"], repeats=facts["repeats"])

    def write(
        self,
        pixels: Tensor,
        out: Tensor,
        *,
        copy: Callable[[Tensor, Tensor], object] | None = None,
        scratch: Tensor | None = None,
    ) -> None:
        """Writes the processor's values for bytes into a tensor.

        Args:
            pixels: A contiguous uint8 tensor whose channels are where the table expects them.
            out: A contiguous floating-point tensor of the shape that `shape` returns.
            copy: A function that copies float32 values to a part of `out`; by default they are
                written there, or copied by torch.
            scratch: A float32 tensor of the same device for intermediate values, which several
                calls may share; it grows as needed. By default each call has its own.
        """
        source = self._rows(pixels)
        runs = source.shape[:2], source.shape[2:]
        target = out.view(source.shape if self.repeats == 1 else (*runs[0], self.repeats, *runs[1]))
        block_size = _BLOCK if pixels.device.type == "cpu" else _ACCELERATOR_BLOCK
        step = max(block_size // max(source[:1].numel(), 1), 1)
        is_direct = copy is None and self.repeats == 1 and out.dtype == torch.float32
        if scratch is None:
            scratch = torch.empty(0, dtype=torch.float32, device=out.device)
        for start in range(0, len(source), step):
            block, found = source[start : start + step], target[start : start + step]
            exact = found if is_direct else scratch.resize_(block.shape)
            self._convert(block, exact)
            if not is_direct:
                values = exact if self.repeats == 1 else exact.unsqueeze(2)
                (copy or Tensor.copy_)(found, values)

    def shape(self, pixels: Tensor) -> tuple[int, ...]:
        """Returns the shape of the processor's values for bytes."""
        return (*pixels.shape[:-1], pixels.shape[-1] * self.repeats)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Returns whether a shape has the channels where the table expects them."""
        number = len(self.values)
        if self.channels == "flat":
            return len(shape) >= 1 and shape[-1] % number == 0
        axis = -1 if self.channels == "last" else -3
        return len(shape) >= -axis and shape[axis] == number

    def _convert(self, pixels: Tensor, out: Tensor) -> None:
        """Writes one block of rows, (N, C, ...), in float32."""
        if self.mean is None or self.deviation is None:
            for channel, values in enumerate(self.values.float().to(out.device)):
                out[:, channel] = values[pixels[:, channel].long()]
            return
        shape = (-1,) if self.channels == "last" else (-1, 1)
        mean, deviation = (x.to(out.device).view(shape) for x in (self.mean, self.deviation))
        out.copy_(pixels)
        out.sub_(mean).div_(deviation)

    def _rows(self, tensor: Tensor) -> Tensor:
        """Returns a view of a tensor as (rows, C, values), or (N, C) if the channels are last."""
        number = len(self.values)
        if self.channels == "last":
            return tensor.view(-1, number)
        if self.channels == "flat":
            return tensor.view(-1, number, tensor.shape[-1] // number)
        return tensor.view(-1, number, tensor.shape[-1] * tensor.shape[-2])
