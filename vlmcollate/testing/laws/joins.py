"""Joins media by the definition of each join rather than by its code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmcollate.media import Concatenate, Join, PadAndConcatenate, Stack

_BUILT_IN = (Concatenate, PadAndConcatenate, Stack)


def is_built_in(join: Join) -> bool:
    """Whether a join has the hooks of a built-in one."""
    return any(
        isinstance(join, kind)
        and type(join).join is kind.join
        and type(join).fill_missing is kind.fill_missing
        for kind in _BUILT_IN
    )


def join_by_definition(join: Join, key: str, values: Sequence[Tensor | None]) -> Tensor:
    """Joins tensors without calling the join, if it is a built-in one.

    Args:
        join: The join.
        key: The media key.
        values: The tensor of each sample, `None` if it has none; at least one is a tensor.
    """
    held = [value for value in values if value is not None]
    if not is_built_in(join):
        filled = [join.fill_missing(held[0]) if value is None else value for value in values]
        return join([value for value in filled if value is not None], key=key)
    if isinstance(join, Concatenate):
        return torch.cat(held, dim=join.axis)
    if isinstance(join, Stack):
        return torch.stack(held)
    assert isinstance(join, PadAndConcatenate)  # noqa: S101  # the last built-in join
    tail = [max(sizes) for sizes in zip(*(value.shape[1:] for value in held), strict=True)]
    rows = []
    for value in values:
        if value is not None or join.every_sample:
            row = held[0].new_full((1 if value is None else len(value), *tail), join.value)
            if value is not None:
                row[tuple(slice(size) for size in value.shape)] = value
            rows.append(row)
    return torch.cat(rows)
