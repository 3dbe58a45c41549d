"""Memory for the tensors of a batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

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


def empty_in_batch(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Makes an uninitialised tensor of a batch, which a worker of a `DataLoader` sends.

    A large one lies in the worker's shared memory, to which it would be copied otherwise, if there
    is room for it. Samples do not lie there, since they may wait in large numbers, and each tensor
    there is an open file.

    Args:
        shape: The shape of the tensor.
        dtype: Its dtype.

    Source:
        `torch.utils.data.default_collate`.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALLEST or get_worker_info() is None:
        return empty(shape, dtype)
    shared: Any = torch.UntypedStorage
    try:
        values = torch.empty(0, dtype=torch.uint8).set_(shared._new_shared(size))
    except RuntimeError:  # a worker that keeps batches has too many files, or no more memory there
        return empty(shape, dtype)
    return values.view(dtype).view(shape)
