"""Reading a processor's table, and its output as bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vlmcollate.pixels.table import Channels, PixelTable


def table_of(part: Any, channels: Channels = "first") -> PixelTable | None:
    """Reads the table of an image or video processor, by its own rescaling and normalisation.

    Args:
        part: The image or video processor.
        channels: Where the channels of its output are.

    Returns:
        The table, or `None` if the processor does not say what it makes of a pixel.
    """
    convert = getattr(part, "rescale_and_normalize", None)
    names = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    options: dict[str, Any] = {name: getattr(part, name, None) for name in names}
    # lists that somebody set become tuples in a call, too
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if convert is None or not options["do_rescale"] or not options["do_normalize"]:
        return None
    every = torch.arange(256, dtype=torch.uint8).repeat(3, 1, 1)
    try:
        values = convert(every[None], **options)[0, :, 0]
    except (TypeError, ValueError, RuntimeError, IndexError):  # it is called otherwise
        return None
    if values.shape != (3, 256) or not values.is_floating_point():
        return None
    factor = 1.0 / options["rescale_factor"]
    mean, deviation = (
        torch.as_tensor(options[name], dtype=torch.float32).mul(factor).expand(3).clone()
        for name in ("image_mean", "image_std")
    )
    computed = PixelTable.computed(mean, deviation, channels)
    return computed if _is_same(computed.values, values) else PixelTable(values.clone(), channels)


def _is_same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def as_bytes(tensor: Tensor, table: PixelTable) -> Tensor | None:
    """Returns a processor's output before normalisation as bytes, or `None` if it is not bytes."""
    if not table.fits(tuple(tensor.shape)):
        return None
    if tensor.dtype == torch.uint8:
        return tensor.contiguous()
    if not tensor.is_floating_point():
        return None
    found = tensor.to(torch.uint8)
    return found.contiguous() if torch.equal(found.to(tensor.dtype), tensor) else None
