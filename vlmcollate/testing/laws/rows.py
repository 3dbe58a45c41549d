"""The rows of a batch, whatever its padding is: padded rows, packs in rows, or all in one row.

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
    """The token tensors of each example, without padding.

    Args:
        subject: What collated it.
        examples: The examples in order.
        batch: What came of them.
    """
    return cut(subject, [subject.collator.encode(messages) for messages in examples], batch)


def cut(
    subject: Subject, samples: Sequence[EncodedSample], batch: dict[str, Tensor]
) -> list[dict[str, Tensor]]:
    """The token tensors of each sample, without padding."""
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
    """Whether a tensor has the batch's rows and tokens as its first axes."""
    return isinstance(value, Tensor) and value.shape[:2] == batch["input_ids"].shape
