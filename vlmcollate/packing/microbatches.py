"""Cutting a batch into the microbatches of pipeline stages, media along with tokens.

Shapes: B rows, n microbatches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.errors import ConfigError

_KINDS = ("image", "video", "audio")


def split_microbatches(
    batch: Mapping[str, Any], n: int, *, items: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Cuts a batch into n microbatches of consecutive rows, each with its own media.

    Args:
        batch: What a collator gave, with tokens padded to rows.
        n: How many; the first ones have one row more where B is no multiple.
        items: For each media key, how its first axis counts: the kind of media (`"image"`) where
            every item of that kind has one row, `"sample"` where every sample has one, or the key
            of a grid (`"image_grid_thw"`) where an item has as many rows as its grid has patches.

    Returns:
        The microbatches. A media key of which a microbatch has nothing is left out.

    Raises:
        ConfigError: `n` is no count of at most B, a media key is not in `items`, or its rows are
            not as many as the counts say.

    Example:
        >>> batch = {"input_ids": torch.zeros(3, 4), "pixel_values": torch.arange(2)}
        >>> batch["n_images_per_sample"] = torch.tensor([0, 1, 1])
        >>> parts = split_microbatches(batch, 2, items={"pixel_values": "image"})
        >>> [part["pixel_values"].tolist() for part in parts]
        [[0], [1]]
    """
    rows = len(batch["input_ids"])
    if not isinstance(n, int) or not 1 <= n <= rows:
        raise ConfigError(f"n must be from 1 to the batch's {rows} rows, not {n!r}")
    sizes = [rows // n + (i < rows % n) for i in range(n)]
    parts: list[dict[str, Any]] = [{} for _ in sizes]
    pieces: Sequence[Any]
    for key, value in batch.items():
        if key in items:
            counts = _rows_of_each_sample(key, batch, items)
            per_part = [int(chunk.sum()) for chunk in torch.split(counts, sizes)]
            if sum(per_part) != len(value):
                raise ConfigError(f"{key} has {len(value)} rows, the counts say {sum(per_part)}")
            pieces = torch.split(value, per_part)
        elif not isinstance(value, Tensor):
            pieces = [value] * n
        elif key == "position_ids" and value.ndim == 3:
            pieces = torch.split(value, sizes, dim=1)
        elif key in _ROWS or (key.startswith("n_") and key.endswith("_per_sample")):
            pieces = torch.split(value, sizes)
        else:
            raise ConfigError(
                f"nobody said what the rows of {key!r} {tuple(value.shape)} are; add it to items"
            )
        for part, piece in zip(parts, pieces, strict=True):
            if key not in items or len(piece):
                part[key] = piece
    return parts


_ROWS = {
    "input_ids",
    "attention_mask",
    "labels",
    "loss_weights",
    "position_ids",
    "mm_token_type_ids",
    "token_type_ids",
    "cross_attention_mask",
    "decoder_input_ids",
    "decoder_attention_mask",
    "seq_lens",
    "seq_lens_padded",
}
"""The keys whose first axis is the batch's rows."""


def _rows_of_each_sample(
    key: str, batch: Mapping[str, Any], items: Mapping[str, str], *, seen: tuple[str, ...] = ()
) -> Tensor:
    """How many rows of a media key belong to each sample, (B,) int64."""
    what = items[key]
    if what == "sample":
        return torch.ones(len(batch["input_ids"]), dtype=torch.int64)
    if what in _KINDS:
        counts = batch.get(f"n_{what}s_per_sample")
        if counts is None:
            raise ConfigError(f"{key} goes by {what}s, but the batch has no n_{what}s_per_sample")
        return torch.as_tensor(counts)
    if what not in items or what not in batch or what in seen:
        raise ConfigError(f"{key} goes by {what!r}, which is no other media key of the batch")
    per_sample = _rows_of_each_sample(what, batch, items, seen=(*seen, key))
    patches = batch[what].prod(dim=1)
    return torch.stack([chunk.sum() for chunk in torch.split(patches, per_sample.tolist())])
