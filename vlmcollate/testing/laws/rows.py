"""Splits a batch into its rows: padded rows, packs in rows, or all samples in one row.

Shapes: B rows, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vlmcollate.sample import EncodedSample
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import Subject


def rows_of(
    subject: Subject, examples: Sequence[Chat], batch: dict[str, Tensor]
) -> list[dict[str, Tensor]]:
    """Returns the token tensors of each example, without padding.

    Args:
        subject: The collator that made the batch.
        examples: The examples in order.
        batch: The batch of the examples.
    """
    return split_rows(subject, [subject.collator.encode(messages) for messages in examples], batch)


def split_rows(
    subject: Subject, samples: Sequence[EncodedSample], batch: dict[str, Tensor]
) -> list[dict[str, Tensor]]:
    """Returns the token tensors of each sample, without padding."""
    shorter = int(subject.collator.shift_labels)
    lengths = [len(sample) - shorter for sample in samples]
    keys = [key for key in samples[0].tokens if _runs_along(batch.get(key), batch)]
    is_flat = len(batch["input_ids"]) < len(samples)
    found, start = [], 0
    for row, length in enumerate(lengths):
        if is_flat:
            found.append({key: batch[key][0, start : start + length] for key in keys})
            start += length
            continue
        total = batch["input_ids"].shape[1]
        begin = total - length if subject.collator.padding.side == "left" else 0
        found.append({key: batch[key][row, begin : begin + length] for key in keys})
    return found


def _runs_along(value: Any, batch: dict[str, Tensor]) -> bool:
    """Whether the first axes of a tensor are the rows and tokens of the batch."""
    return isinstance(value, Tensor) and value.shape[:2] == batch["input_ids"].shape
