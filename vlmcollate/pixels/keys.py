"""The media tensors that hold pixels, and their dtype in a batch."""

from __future__ import annotations

import re
from typing import Literal, get_args

import torch
from torch import Tensor

PixelFormat = Literal["float32", "bfloat16", "uint8"]
PIXEL_FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)

_OTHER = re.compile("mask|audio|input_features|input_values")


def dtype_of(pixels: PixelFormat) -> torch.dtype | None:
    """Returns the dtype of pixels that are floats; `None` keeps the processor's."""
    return torch.bfloat16 if pixels == "bfloat16" else None


def cast_pixels(key: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Casts a media tensor if it holds pixels as floats.

    Masks, audio, and tensors of one axis, such as seconds per frame, keep their dtype.

    Args:
        key: The processor's name of the tensor.
        tensor: A media tensor of any shape.
        dtype: The dtype, or `None` to keep the tensor's.

    Returns:
        A tensor of the same shape; the same object if nothing changes.
    """
    is_kept = dtype is None or not tensor.is_floating_point() or tensor.ndim < 2
    return tensor if is_kept or _OTHER.search(key) else tensor.to(dtype)
