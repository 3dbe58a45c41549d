"""Pads rows by a strategy, and checks the strategy's result.

Shapes: B rows, L a row's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.encode.hooks import breach, run_hook
from vlmcollate.padding import PaddingStrategy


def pad_rows(
    padding: PaddingStrategy, rows: Sequence[Mapping[str, Tensor]], fill: Mapping[str, float]
) -> dict[str, Tensor]:
    """Pads the token tensors of a batch.

    Args:
        padding: The padding strategy, or the layout of packs.
        rows: The token tensors of each row, (L,) or (L, ...).
        fill: The padding value of each key; 0 by default.

    Raises:
        StrategyError: The strategy fails, or returns rows of a length other than `padded_length`.
    """
    batch: Any = run_hook(padding, rows, fill, strategy=padding, is_of_batch=True)
    shape = _shape(batch)
    if shape is None or batch["labels"].shape != shape:
        raise breach(batch, "a dict with input_ids and labels of one shape (B, T)", padding)
    if padding.separates_by is None:
        lengths = [len(row["input_ids"]) for row in rows]
        length = run_hook(padding.padded_length, lengths, strategy=padding, is_of_batch=True)
        lost = [key for key in rows[0] if key not in batch]
        if tuple(shape) != (len(rows), length) or length < max(lengths) or lost:
            expected = f"({len(rows)}, {length}) by padded_length, at least {max(lengths)} tokens"
            raise breach(batch["input_ids"], f"every key of shape {expected}", padding)
    return dict(batch)


def _shape(batch: Any) -> Any:
    """Returns the shape of a batch's ids, or `None` if it has none."""
    if not isinstance(batch, Mapping) or not {"input_ids", "labels"} <= batch.keys():
        return None
    ids = batch["input_ids"]
    return ids.shape if isinstance(ids, Tensor) and ids.ndim == 2 else None
