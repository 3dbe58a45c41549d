"""Compares the rows of a batch with samples that were encoded alone.

Shapes: L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.pixels import dtype_of
from vlmcollate.sample import EncodedSample
from vlmcollate.testing.laws.failure_messages import failure
from vlmcollate.testing.laws.for_all import Chat, LawFailure
from vlmcollate.testing.laws.joins import join_by_definition
from vlmcollate.testing.laws.rows import split_rows
from vlmcollate.testing.laws.subject import Subject


def check_rows_are(
    subject: Subject, batch: dict[str, Any], samples: Sequence[EncodedSample], chats: Sequence[Chat]
) -> None:
    """Checks that the rows of a batch are samples, in their order, and padding.

    Args:
        subject: The collator of single conversations, which makes rows.
        batch: The batch.
        samples: The samples, each of which was encoded alone.
        chats: The conversation of each.

    Raises:
        LawFailure: A row or the media differs.
    """
    if len(batch["input_ids"]) != len(samples):
        raise _failure("rows", "the batch", len(samples), len(batch["input_ids"]), chats[0])
    for row, (sample, found) in enumerate(
        zip(samples, split_rows(subject, samples, batch), strict=True)
    ):
        for key, value in found.items():
            check_row_is(key, row, value, sample.tokens.get(key), chats[row])
        attended = int(batch["attention_mask"][row].sum())
        expected = int(sample.tokens["attention_mask"].sum())
        if attended != expected:
            raise _failure("attention_mask", f"row {row}", expected, attended, chats[row])
    check_media_is(subject.collator, batch, samples, chats[0])


def check_row_is(key: str, row: int, found: Tensor, value: Tensor | None, messages: Chat) -> None:
    """Checks that a token tensor of a row is that of its sample.

    Args:
        key: The key.
        row: The number of the row.
        found: The tensor of the row without padding, (L, ...).
        value: That of the sample; `None` if only other samples have it, such as `loss_weights`.
        messages: The conversation.

    Raises:
        LawFailure: It differs.
    """
    if value is None:
        return
    inside = found[tuple(slice(size) for size in value.shape)]  # further axes may be padded, too
    if not torch.equal(inside, value):
        raise failure(
            f"{key} of row {row} differs from the encoded sample",
            "let stack pad the tensors without changing them",
            messages=messages,
            expected=value.tolist(),
            found=inside.tolist(),
        )


def check_media_is(
    collator: BaseCollator, batch: dict[str, Any], samples: Sequence[EncodedSample], messages: Chat
) -> None:
    """Checks that the media tensors of a batch are those of samples, joined in their order.

    Raises:
        LawFailure: A tensor differs, or is missing.
    """
    dtype = dtype_of(collator.pixels)
    for key in dict.fromkeys(key for sample in samples for key in sample.media):
        values = [s.pixels(key, dtype) if key in s.media else None for s in samples]
        expected = join_by_definition(collator.family.joins[key], key, values)
        found = batch.get(key)
        if found is None or found.shape != expected.shape or not torch.equal(found, expected):
            raise _failure(key, "the batch", _start(expected), _start(found), messages)


def _start(value: Tensor | None) -> str:
    if value is None:
        return "no such key"
    return f"{tuple(value.shape)} beginning with {value.flatten()[:4].tolist()}"


def _failure(key: str, where: str, expected: Any, found: Any, messages: Chat) -> LawFailure:
    return failure(
        f"{key} of {where} differs from the conversations alone",
        "let stack pad and join each sample without changing it, also samples that share media",
        messages=messages,
        expected=expected,
        found=found,
    )
