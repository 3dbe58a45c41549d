"""Memory for the tensors of a batch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 22


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Makes an uninitialised tensor; a large one lies on huge pages.

    The kernel clears each page of fresh memory when it is first written, which takes longer than
    joining the pixels if the pages are small.

    Args:
        shape: The shape of the tensor.
        dtype: Its dtype.

    Source:
        NumPy asks the kernel for huge pages for large arrays (`NUMPY_MADVISE_HUGEPAGE`); torch
        does not.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALLEST:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(np.empty(size, np.uint8)).view(dtype).view(shape)
