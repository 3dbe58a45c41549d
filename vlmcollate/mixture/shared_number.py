"""A number that processes share."""

from __future__ import annotations

import torch


class SharedNumber:
    """A number that a process sets for the workers that it has started, which may persist."""

    _cell: torch.Tensor

    def __init__(self, value: int = 0) -> None:
        """Creates the number in shared memory."""
        self.__setstate__(torch.tensor(value))

    def get(self) -> int:
        """Returns the number."""
        return int(self._cell)

    def set(self, value: int) -> None:
        """Sets the number, for all processes that share it."""
        self._cell.fill_(value)

    def __getstate__(self) -> torch.Tensor:
        return self._cell

    def __setstate__(self, cell: torch.Tensor) -> None:
        cell.share_memory_()  # type: ignore[no-untyped-call]  # does nothing in a worker
        self._cell = cell
