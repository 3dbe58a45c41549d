"""Memory for pixels."""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Block = npt.NDArray[np.uint8]


class Pool:
    """Memory of batches that were let go, for the batches that follow.

    The kernel clears every page that it hands out, which takes longer than joining the pixels; on
    virtual machines, which give a page only when it is first touched, ten times as long. Blocks lie
    on huge pages, and up to `limit` bytes of free ones are kept.

    Source:
        NumPy asks the kernel for huge pages for large arrays (`NUMPY_MADVISE_HUGEPAGE`); torch
        does not.
    """

    limit = 1 << 29
    smallest = 1 << 20

    def __init__(self) -> None:
        self._free: dict[int, Block] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory, which nobody else has until every view of it is gone."""
        size = math.prod(shape) * dtype.itemsize
        if size < self.smallest:
            return torch.empty(shape, dtype=dtype)
        block = self._taken(size)
        lent = block[:size]
        weakref.finalize(lent, self._give_back, block).atexit = False
        # the tensor's storage holds on to the very array `lent`
        return torch.from_numpy(lent).view(dtype).view(shape)

    def _taken(self, size: int) -> Block:
        fitting = [
            (len(b), key) for key, b in list(self._free.items()) if size <= len(b) < 2 * size
        ]
        for _, key in sorted(fitting):
            block = self._free.pop(key, None)
            if block is not None:  # no other thread was faster
                return block
        return np.empty(-(-size // self.smallest) * self.smallest, np.uint8)

    def _give_back(self, block: Block) -> None:
        if len(block) > self.limit:
            return
        self._free[id(block)] = block
        while sum(map(len, list(self._free.values()))) > self.limit:
            self._free.pop(next(iter(self._free), 0), None)  # the one that waits longest


_POOL = Pool()
empty = _POOL.empty


class Scratch(threading.local):
    """A thread's memory for the pixels of a batch's samples until they are joined.

    A processor's output that is moved here at once can be freed, and its memory used for the next
    sample's pixels; holding on to it would have every sample write to fresh pages, which takes half
    as long again. The scratch grows to the largest batch seen, up to `limit` bytes.
    """

    limit = 1 << 30
    smallest = 1 << 20  # what is smaller is not worth the copy

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._used = self._wanted = 0

    def clear(self) -> None:
        """Forgets what was moved here; those tensors must not be used any more."""
        if min(self._wanted, self.limit) > len(self._memory):
            self._memory = empty((min(self._wanted, self.limit),), torch.uint8)
        self._used = self._wanted = 0

    def move(self, value: Tensor) -> Tensor:
        """The tensor in scratch memory, or as it is where there is no room."""
        size = value.numel() * value.itemsize
        if size < self.smallest:
            return value
        start, self._used, self._wanted = self._used, self._used, self._wanted + _aligned(size)
        if start + _aligned(size) > len(self._memory):
            return value
        self._used = start + _aligned(size)
        place = self._memory[start : start + size].view(value.dtype).view(value.shape)
        return place.copy_(value)

    def holds(self, value: object) -> bool:
        """Whether a tensor lies in scratch memory."""
        if not isinstance(value, Tensor) or not len(self._memory):
            return False
        return value.untyped_storage().data_ptr() == self._memory.untyped_storage().data_ptr()


def _aligned(size: int) -> int:
    return -(-size // 64) * 64
