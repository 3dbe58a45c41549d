"""Memory for pixels."""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from torch import Tensor


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


class Scratch(threading.local):
    """A thread's memory for the pixels of a batch's samples until they are joined.

    A processor's output that is moved here at once can be freed, and its memory used for the next
    sample's pixels; holding on to it would have every sample write to fresh pages, which takes half
    as long again. The scratch grows to the largest batch seen, up to `limit` bytes.
    """

    limit = 1 << 30

    def __init__(self) -> None:
        self._memory = empty((0,), torch.uint8)
        self._used = self._wanted = 0

    def clear(self) -> None:
        """Forgets what was moved here; those tensors must not be used any more."""
        if min(self._wanted, self.limit) > len(self._memory):
            self._memory = empty((min(self._wanted, self.limit),), torch.uint8)
        self._used = self._wanted = 0

    def move(self, value: Tensor) -> Tensor:
        """The tensor in scratch memory, or as it is where there is no room."""
        size = value.numel() * value.itemsize
        start, self._used, self._wanted = self._used, self._used, self._wanted + _aligned(size)
        if not size or start + _aligned(size) > len(self._memory):
            return value
        self._used = start + _aligned(size)
        place = self._memory[start : start + size].view(value.dtype).view(value.shape)
        return place.copy_(value)

    def holds(self, value: Tensor) -> bool:
        """Whether a tensor lies in scratch memory."""
        return value.untyped_storage().data_ptr() == self._memory.untyped_storage().data_ptr()


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
