"""Joins several samples into one that holds them as documents, and unpacks it again.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import joined_bytes
from vlmcollate.batch.stacking import token_rows
from vlmcollate.errors import ConfigError
from vlmcollate.media import Join
from vlmcollate.sample import IGNORE_INDEX, Document, EncodedSample

PACK_KEYS = frozenset({"document_ids", "position_ids", "block_ids"})
"""The token keys that only a pack has."""


def join_documents(
    samples: Sequence[EncodedSample],
    positions: Sequence[Tensor],
    joins: Mapping[str, Join],
    fill: Mapping[str, float],
    *,
    multiple_of: int = 1,
) -> EncodedSample:
    """Joins several samples into one.

    Args:
        samples: The documents, at least one, none of them a pack.
        positions: The position ids of each, (L,) or (L, axes).
        joins: The joining rule of each media key.
        fill: The value of each key in the padding between documents.
        multiple_of: Every document is padded to a multiple of this many tokens.

    Returns:
        The pack; see `BaseCollator.pack`.
    """
    rows = token_rows(samples)
    for number, (row, place) in enumerate(zip(rows, positions, strict=True), 1):
        # tokens that are never attended to, such as dummy media, belong to no document
        row["document_ids"] = row["attention_mask"] * number
        row["position_ids"] = place
        row["labels"] = row["labels"].clone()
        row["labels"][:1] = IGNORE_INDEX
        if "loss_weights" in row:
            row["loss_weights"] = row["loss_weights"].clone()
            row["loss_weights"][:1] = 0
    lengths = [-(-len(sample) // multiple_of) * multiple_of for sample in samples]
    tokens = {
        key: _concatenated([row[key] for row in rows], lengths, fill.get(key, 0)) for key in rows[0]
    }
    offsets, items = [], 0
    for sample in samples:
        offsets.append(items)
        items += sum(sample.media_counts.values())
    media_ids = [
        torch.where(s.media_ids >= 0, s.media_ids + offset, -1)
        for s, offset in zip(samples, offsets, strict=True)
    ]
    counts: dict[str, int] = {}
    for sample in samples:
        for kind, count in sample.media_counts.items():
            counts[kind] = counts.get(kind, 0) + count
    media, tables = joined_bytes(samples, joins)
    names = dict.fromkeys(sample.label_strategy for sample in samples)
    return EncodedSample(
        tokens=tokens,
        message_ids=_concatenated([sample.message_ids for sample in samples], lengths, -1),
        media_ids=_concatenated(media_ids, lengths, -1),
        media=media,
        pixel_tables=tables,
        media_counts=counts,
        label_strategy=names.popitem()[0] if len(names) == 1 else "",
        documents=tuple(
            Document(
                length=len(sample),
                padded_length=length,
                token_keys=tuple(sample.tokens),
                media_shapes={key: tuple(value.shape) for key, value in sample.media.items()},
                media_counts=dict(sample.media_counts),
                label_strategy=sample.label_strategy,
            )
            for sample, length in zip(samples, lengths, strict=True)
        ),
    )


def unpack(pack: EncodedSample) -> list[EncodedSample]:
    """Returns the samples of a pack.

    Args:
        pack: The result of `BaseCollator.pack`.

    Returns:
        The original samples, except that the first token of each has no label, since no token
        before it could predict it.

    Raises:
        ConfigError: The sample is not a pack, or a media tensor cannot be cut, since its join
            neither concatenates nor stacks the tensors of the documents.
    """
    if not pack.documents or "branch_ids" in pack.tokens:
        raise ConfigError("this sample holds no documents; pass a result of `pack`")
    samples, start, items = [], 0, 0
    parts = {key: _parts(pack, key) for key in pack.media}
    for document in pack.documents:
        tokens = slice(start, start + document.length)
        media_ids = pack.media_ids[tokens]
        media = {key: next(parts[key]).clone() for key in document.media_shapes}
        samples.append(
            EncodedSample(
                tokens={key: pack.tokens[key][tokens].clone() for key in document.token_keys},
                message_ids=pack.message_ids[tokens].clone(),
                media_ids=torch.where(media_ids >= 0, media_ids - items, -1),
                media=media,
                media_counts=document.media_counts,
                label_strategy=document.label_strategy,
                pixel_tables={k: t for k, t in pack.pixel_tables.items() if k in media},
            )
        )
        start += document.padded_length
        items += sum(document.media_counts.values())
    return samples


def _parts(pack: EncodedSample, key: str) -> Iterator[Tensor]:
    """Yields the media tensor of each document that has the key."""
    joined = pack.media[key]
    shapes = [d.media_shapes[key] for d in pack.documents if key in d.media_shapes]
    if joined.ndim == len(shapes[0]) + 1 and len(joined) == len(shapes):
        return (joined[row] for row in range(len(shapes)))
    axis = _joined_axis(tuple(joined.shape), shapes)
    if axis is None:
        raise ConfigError(
            f"the pack's {key!r} of shape {tuple(joined.shape)} cannot be cut into its documents' "
            f"shapes {shapes}; keep the samples beside their pack, or declare a join that "
            "concatenates or stacks"
        )
    ends = list(accumulate(shape[axis] for shape in shapes))
    starts = [0, *ends]
    return (
        joined[tuple(slice(a, b) if i == axis else slice(0, n) for i, n in enumerate(shape))]
        for a, b, shape in zip(starts, ends, shapes, strict=False)
    )


def _joined_axis(joined: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> int | None:
    """The axis along which tensors were concatenated, the other axes padded to the largest."""
    if any(len(shape) != len(joined) for shape in shapes):
        return None
    largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    for axis, size in enumerate(joined):
        rest = [a == b for i, (a, b) in enumerate(zip(joined, largest, strict=True)) if i != axis]
        if sum(shape[axis] for shape in shapes) == size and all(rest):
            return axis
    return None


def with_blocks(sample: EncodedSample, token_types: str) -> EncodedSample:
    """Adds the blocks of tokens that attend to each other bidirectionally.

    Args:
        sample: The sample, in which each run of tokens of type 1 is a block.
        token_types: The key of the token types.

    Returns:
        The sample with the key `block_ids`, (L,) int64: from 1 on in each sample, and 0 for text.
    """
    is_media = sample.tokens[token_types] == 1
    begins = is_media & ~torch.cat([is_media.new_zeros(1), is_media[:-1]])
    blocks = torch.where(is_media, begins.cumsum(0), 0)
    return attrs.evolve(sample, tokens={**sample.tokens, "block_ids": blocks})


def _concatenated(rows: Sequence[Tensor], lengths: Sequence[int], value: float) -> Tensor:
    if all(len(row) == length for row, length in zip(rows, lengths, strict=True)):
        return torch.cat(list(rows))
    joined = torch.full((sum(lengths), *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    start = 0
    for row, length in zip(rows, lengths, strict=True):
        joined[start : start + len(row)] = row
        start += length
    return joined
