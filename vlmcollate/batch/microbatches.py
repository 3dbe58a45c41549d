"""Splits a batch into the microbatches of pipeline stages, media along with tokens.

Shapes: B rows, n microbatches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.errors import ConfigError
from vlmcollate.media import Join
from vlmcollate.pixels import PixelBytes
from vlmcollate.validators import check_count

_KINDS = ("image", "video", "audio")


def split_microbatches(
    batch: Mapping[str, Any], n: int, *, items: Mapping[str, str | Join] | None = None
) -> list[dict[str, Any]]:
    """Splits a batch into n microbatches of rows, each with its own media.

    Args:
        batch: The result of a collator, with tokens padded to rows.
        n: The number of microbatches. If B is not a multiple of it, the first ones have one row
            more.
        items: The unit of each media key's first axis, see `Join.rows`: `collator.family.joins`, or
            a dict of your own. Text alone does not need it.

    Returns:
        The microbatches, without the media keys of which they have no rows.

    Raises:
        ConfigError: `n` is not between 1 and B, or a media key is undeclared or has a wrong number
            of rows.

    Example:
        >>> batch = {"input_ids": torch.zeros(3, 4), "pixel_values": torch.arange(2)}
        >>> batch["n_images_per_sample"] = torch.tensor([0, 1, 1])
        >>> parts = split_microbatches(batch, 2, items={"pixel_values": "image"})
        >>> [part["pixel_values"].tolist() for part in parts]
        [[0], [1]]
    """
    rows = len(batch["input_ids"])
    check_count("n", n)
    if n > rows:
        raise ConfigError(f"n must be at most the batch's {rows} rows, not {n}")
    sizes = [rows // n + (i < rows % n) for i in range(n)]
    declared = {
        key: rule.rows if isinstance(rule, Join) else rule
        for key, rule in (items or {}).items()
        if key in batch
    }
    parts: list[dict[str, Any]] = [{} for _ in sizes]
    for key, value in batch.items():
        for part, piece in zip(parts, _pieces(key, value, batch, declared, sizes), strict=True):
            if key not in declared or len(piece):
                part[key] = piece
    return parts


_ROWS = {
    "input_ids",
    "attention_mask",
    "labels",
    "loss_weights",
    "logprobs",
    "position_ids",
    "mm_token_type_ids",
    "token_type_ids",
    "cross_attention_mask",
    "decoder_input_ids",
    "decoder_attention_mask",
    "seq_lens",
    "seq_lens_padded",
    "branch_ids",
    "completion_mask",
}
"""The keys whose first axis is the batch's rows."""


def _pieces(
    key: str,
    value: Any,
    batch: Mapping[str, Any],
    declared: Mapping[str, str | None],
    sizes: Sequence[int],
) -> Sequence[Any]:
    """Returns one key of each microbatch."""
    if declared.get(key) is not None:
        counts = _rows_of_each_sample(key, batch, declared)
        per_part = [int(chunk.sum()) for chunk in torch.split(counts, list(sizes))]
        _check_rows(key, value, sum(per_part))
        return _split(value, per_part)
    if isinstance(value, str | bool | int | float) or getattr(value, "shape", None) == ():
        return [value] * len(sizes)
    if isinstance(value, Mapping):  # a mask for each kind of attention layer
        cut = {k: _pieces(key, v, batch, declared, sizes) for k, v in value.items()}
        return [{k: pieces[i] for k, pieces in cut.items()} for i in range(len(sizes))]
    if not isinstance(value, Tensor | PixelBytes):
        raise ConfigError(
            f"{key} is {type(value).__name__}, which cannot be split into rows; stack each "
            "microbatch by itself"
        )
    if key == "position_ids" and isinstance(value, Tensor) and value.ndim == 3:
        return torch.split(value, list(sizes), dim=1)
    if key in _ROWS or (key.startswith("n_") and key.endswith("_per_sample")):
        return _split(value, sizes)
    if key.startswith(("cu_seq", "max_length_")) or key == "seq_idx":
        raise ConfigError(
            f"a flattened batch has no rows to split: found {key!r}; split the packs before "
            "stacking"
        )
    if key in declared:
        raise ConfigError(
            f"the rows of {key!r} {tuple(value.shape)} are unknown, since its join has rows=None; "
            "stack each microbatch by itself, or declare rows if the first axis counts items"
        )
    raise ConfigError(
        f"the rows of {key!r} {tuple(value.shape)} are not declared; pass "
        "items=collator.family.joins, or name them there, such as "
        f'items={{{key!r}: "image"}}'
    )


def _split(value: Tensor | PixelBytes, sizes: Sequence[int]) -> Sequence[Tensor | PixelBytes]:
    """Returns consecutive rows, as many as each size says."""
    if isinstance(value, PixelBytes):
        return value.split(sizes)
    return torch.split(value, list(sizes))


def _check_rows(key: str, value: Tensor | PixelBytes, expected: int) -> None:
    if expected != len(value):
        raise ConfigError(
            f"{key} has the wrong number of rows: found {len(value)}, expected {expected} by the "
            "counts of the batch; keep its n_images_per_sample and the like, with counts=True, or "
            "stack each microbatch by itself if an item has several rows, such as tiles"
        )


def _rows_of_each_sample(
    key: str,
    batch: Mapping[str, Any],
    declared: Mapping[str, str | None],
    *,
    seen: tuple[str, ...] = (),
) -> Tensor:
    """Returns the number of rows of a media key for each sample, (B,) int64."""
    terms = [_counted(key, rule, batch, declared, seen) for rule in str(declared[key]).split(" + ")]
    return torch.stack(terms).sum(dim=0)


def _counted(
    key: str,
    rule: str,
    batch: Mapping[str, Any],
    declared: Mapping[str, str | None],
    seen: tuple[str, ...],
) -> Tensor:
    samples = len(batch["input_ids"])
    if rule == "sample":
        return torch.ones(samples, dtype=torch.int64)
    kind = rule.removeprefix("samples with ")
    if kind in _KINDS:
        counts = torch.as_tensor(batch.get(f"n_{kind}s_per_sample", [0] * samples))
        return (counts > 0).long() if kind != rule else counts
    if declared.get(rule) is None or rule in seen:
        raise ConfigError(
            f"{key} is declared by {rule!r}, which is not another media key of the batch"
        )
    per_sample = _rows_of_each_sample(rule, batch, declared, seen=(*seen, key))
    _check_rows(rule, batch[rule], int(per_sample.sum()))
    each = batch[rule].reshape(len(batch[rule]), -1).prod(dim=1)
    return torch.stack([chunk.sum() for chunk in torch.split(each, per_sample.tolist())])
