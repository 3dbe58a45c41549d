"""Memory for the tensors of a batch."""

from __future__ import annotations

import errno
import math
import os
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vlmcollate.errors import ConfigError

_SMALLEST = 1 << 22
_TOO_MANY_FILES = errno.EMFILE, errno.ENFILE


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


@attrs.frozen(eq=False)
class BatchMemory:
    """The memory of a tensor of a batch, which a worker of a `DataLoader` sends.

    A large one lies in the worker's shared memory, to which it would be copied otherwise. Samples
    do not lie there, since they may wait in large numbers, and each tensor there is an open file.

    Attributes:
        tensor: The tensor, uninitialised.
        file: The descriptor of the file that it maps, if that is known.

    Source:
        `torch.utils.data.default_collate`.
    """

    tensor: Tensor
    file: int | None = None

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: torch.dtype) -> BatchMemory:
        """Returns the memory of a tensor.

        Args:
            shape: The shape of the tensor.
            dtype: Its dtype.

        Raises:
            ConfigError: Shared memory has no room for it.
        """
        size = math.prod(shape) * dtype.itemsize
        if size < _SMALLEST or get_worker_info() is None:
            return cls(empty(shape, dtype))
        kind: Any = torch.UntypedStorage
        try:
            storage = kind._new_shared(size)
        except RuntimeError as error:
            if any(f"({number})" in str(error) for number in _TOO_MANY_FILES):
                return cls(empty(shape, dtype))  # as in a worker that keeps batches
            raise _no_room(size, error) from error  # torch would wait forever for the batch
        values = torch.empty(0, dtype=torch.uint8).set_(storage)
        file = storage._share_fd_cpu_()[0] if _sends_descriptors() else None
        return cls(values.view(dtype).view(shape), file)

    def copy(self, place: Tensor, values: Tensor) -> None:
        """Copies values to a part of the tensor, as `place.copy_(values)` does.

        The system calls that write a file take half as long as the first write to each page of
        its mapping.

        Args:
            place: A part of the tensor.
            values: The values, of any dtype and of a shape that `place` expands.
        """
        if self.file is None or not place.is_contiguous():
            place.copy_(values)
            return
        exact = values.to(place).expand(place.shape).contiguous()
        data = exact.view(-1).view(torch.uint8).numpy().data
        start = int(place.storage_offset()) * place.itemsize
        try:
            while data:
                written = os.pwrite(self.file, data, start)
                data, start = data[written:], start + written
        except OSError as error:
            raise _no_room(self.tensor.nbytes, error) from error


def _no_room(size: int, error: Exception) -> ConfigError:
    return ConfigError(
        f"shared memory has no room for the {size >> 20} MiB of a batch that a worker sends: "
        f"{error}; enlarge it, as with docker run --shm-size=16g, or use fewer workers, a lower "
        "prefetch_factor or smaller batches"
    )


def in_batch(tensor: Tensor) -> Tensor:
    """Returns a tensor, or its copy in the file that a worker of a `DataLoader` sends."""
    if not (_sends_descriptors() and _is_plain(tensor)):
        return tensor
    memory = BatchMemory.of(tuple(tensor.shape), tensor.dtype)
    if memory.file is None:
        return tensor
    memory.copy(memory.tensor, tensor)
    return memory.tensor


def _sends_descriptors() -> bool:
    """Returns whether this process sends the descriptors of files, not their names."""
    sharing: Any = torch.multiprocessing
    return bool(sharing.get_sharing_strategy() == "file_descriptor")


def _is_plain(tensor: Tensor) -> bool:
    """Returns whether a tensor is its values and no more, and owns them alone."""
    return (
        type(tensor) is Tensor
        and (tensor.layout, tensor.device.type) == (torch.strided, "cpu")
        and not (tensor.is_nested or tensor.is_quantized or tensor.requires_grad)
        and not (tensor.is_conj() or tensor.is_neg())
        and not tensor.is_shared()  # type: ignore[no-untyped-call]
        and tensor.is_contiguous()
    )
