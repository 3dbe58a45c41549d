"""Memory for pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_LARGE = 1 << 20  # bytes


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory on huge pages, which the first write fills several times faster.

    Source:
        NumPy asks the kernel for huge pages for large arrays (`NUMPY_MADVISE_HUGEPAGE`); torch
        does not.
    """
    size = math.prod(shape) * dtype.itemsize
    if not size:  # memory without bytes cannot be viewed as another dtype
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(size, np.uint8)).view(dtype).view(shape)


def settled(value: Tensor) -> Tensor:
    """A tensor to keep, moved to such memory if it is large.

    What an image processor returns can then be freed and its memory used for the next sample's
    pixels, where holding on to it would have every sample write to fresh pages.
    """
    if value.numel() * value.itemsize < _LARGE:
        return value
    return empty(tuple(value.shape), value.dtype).copy_(value)
