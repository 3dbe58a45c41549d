"""Tensors along the tokens as runs of equal values, for many samples at a time.

Shapes: S samples, L a sample's tokens, K keys, R runs, N values and lengths of runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]
_SMALL = 64
"""At most this many tokens are always stored as runs, so that short rows need nothing else."""


@attrs.frozen(eq=False)
class Runs:
    """The runs of samples.

    Attributes:
        names: The keys of each sample's tensors that are runs.
        data: (N,) for each sample the values of its tensors, one tensor after the other, and then
            the lengths of their runs in the same order.
        edges: (S + 1,) the edges of the samples in `data`.
    """

    names: list[tuple[str, ...]]
    data: Ints
    edges: Ints

    @classmethod
    def of(cls, tensors: Sequence[Mapping[str, Tensor]], lengths: Ints) -> Runs:
        """Finds the tensors that take less space as runs.

        Args:
            tensors: The tensors of each of S samples. Those that are not int64 and (L,) are left.
            lengths: (S,) the tokens of each sample.
        """
        keys = tuple(dict.fromkeys(key for some in tensors for key in some))
        starts = np.zeros((len(tensors), 2, len(keys)), np.int64)
        numbers = np.zeros_like(starts)
        values, counts, total = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
        for place, key in enumerate(keys):
            rows = _rows_with_integers(tensors, key, lengths)
            if rows:
                data = joined([tensors[row][key] for row in rows])
                some_values, some_counts, edges = _runs(data, edges_of(lengths[rows]))
                number = np.diff(edges)
                number[2 * number + 2 > np.maximum(lengths[rows], _SMALL)] = 0
                numbers[rows, :, place] = number[:, None]
                starts[rows, :, place] = (total + edges[:-1])[:, None]
                values.append(some_values)
                counts.append(some_counts)
                total += len(some_values)
        starts[:, 1] += total
        names = [tuple(compress(keys, flags)) for flags in numbers[:, 0].tolist()]
        data = _gathered(np.concatenate(values + counts), starts.ravel(), numbers.ravel())
        return cls(names, data, edges_of(numbers.sum((1, 2))))


def _rows_with_integers(
    tensors: Sequence[Mapping[str, Tensor]], key: str, lengths: Ints
) -> list[int]:
    """Returns the samples whose tensor of a key is int64 and (L,)."""
    found = []
    for row, (some, length) in enumerate(zip(tensors, lengths.tolist(), strict=True)):
        tensor = some.get(key)
        if tensor is None or tensor.dtype != torch.int64:
            continue
        if tensor.ndim == 1 and tensor.numel() == length:
            found.append(row)
    return found


def _runs(data: Ints, edges: Ints) -> tuple[Ints, Ints, Ints]:
    """Returns the values and the lengths of the runs of some rows, (R,), and the rows' edges."""
    begins = is_start(edges)
    begins[1:] |= data[1:] != data[:-1]
    starts = np.flatnonzero(begins)
    return data[starts], np.diff(starts, append=len(data)), np.searchsorted(starts, edges)


def _gathered(data: Ints, starts: Ints, numbers: Ints) -> Ints:
    """Returns spans of an array, one after the other."""
    edges = edges_of(numbers)
    found: Ints = data[np.arange(edges[-1]) + np.repeat(starts - edges[:-1], numbers)]
    return found


def joined(tensors: Sequence[Tensor]) -> Ints:
    """Returns int64 tensors (L,) as one array."""
    return torch.cat([*tensors]).numpy() if tensors else np.empty(0, np.int64)


def edges_of(counts: npt.ArrayLike) -> Ints:
    """Returns the edges of spans of some sizes, (number + 1,), from 0 on."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def is_start(edges: Ints) -> npt.NDArray[np.bool_]:
    """Returns at which places a span starts, as many as the last edge."""
    found = np.zeros(edges[-1] + 1, np.bool_)
    found[edges[:-1]] = True
    return found[:-1]
