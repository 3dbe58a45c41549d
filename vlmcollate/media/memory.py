"""Reusing the memory of media tensors."""

from __future__ import annotations

import math
import weakref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Block = npt.NDArray[np.uint8]


class Pool:
    """Keeps the memory of freed batches for later batches.

    The kernel clears every page that it hands out, which takes longer than joining the pixels; on
    virtual machines, which provide a page only when it is first touched, ten times as long. Blocks
    lie on huge pages, and up to `limit` bytes of free ones are kept.

    Attributes:
        limit: The maximum number of bytes of free blocks.
        smallest: The minimum number of bytes of a block; smaller tensors come from torch.

    Source:
        NumPy asks the kernel for huge pages for large arrays (`NUMPY_MADVISE_HUGEPAGE`); torch
        does not.
    """

    limit = 1 << 29
    smallest = 1 << 20

    def __init__(self) -> None:
        self._free: dict[int, Block] = {}

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Makes an uninitialised tensor, whose memory is reused once every view of it is gone.

        Args:
            shape: The shape of the tensor.
            dtype: Its dtype.
        """
        size = math.prod(shape) * dtype.itemsize
        if size < self.smallest:
            return torch.empty(shape, dtype=dtype)
        block = self._take(size)
        lent = block[:size]
        weakref.finalize(lent, self._give_back, block).atexit = False
        # the tensor's storage keeps a reference to the very array `lent`
        return torch.from_numpy(lent).view(dtype).view(shape)

    @property
    def free_bytes(self) -> int:
        """The number of bytes of free blocks."""
        return sum(map(len, list(self._free.values())))

    def _take(self, size: int) -> Block:
        fitting = [
            (len(b), key) for key, b in list(self._free.items()) if size <= len(b) < 2 * size
        ]
        for _, key in sorted(fitting):
            block = self._free.pop(key, None)
            if block is not None:  # unless another thread took it
                return block
        return np.empty(-(-size // self.smallest) * self.smallest, np.uint8)

    def _give_back(self, block: Block) -> None:
        if len(block) > self.limit:
            return
        self._free[id(block)] = block
        while self.free_bytes > self.limit:
            self._free.pop(next(iter(self._free), 0), None)  # the oldest one


_POOL = Pool()
empty = _POOL.empty
