"""Reads samples and packs that are already tokenized, by this library or by Automodel.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.automodel.conventions import PIXELS, TOKEN_KEYS
from vlmcollate.batch.media import joined_media
from vlmcollate.batch.stacking import media_counts
from vlmcollate.errors import ConfigError
from vlmcollate.media import Concatenate, Join
from vlmcollate.sample import EncodedSample

JOINS_KEY = "media_joins"
"""The key of a pack for the rules that join its media with that of other packs."""
MEDIA_JOINS: Mapping[str, Join] = {
    "pixel_values": Concatenate(),
    "image_grid_thw": Concatenate(rows="image"),
    "image_position_ids": Concatenate(),
    "pixel_values_videos": Concatenate(),
    "video_grid_thw": Concatenate(rows="video"),
    "second_per_grid_ts": Concatenate(rows="video"),
}
"""The joins if neither a processor nor a pack declares any: the media keys of Automodel."""
_KINDS = ("image", "video", "audio")


@attrs.frozen(eq=False)
class TokenizedSample:
    """A sample that is already tokenized.

    Attributes:
        sample: The tokens, and the media keys that hold one tensor.
        tensor_lists: The media keys that hold a list of tensors of different sizes.
    """

    sample: EncodedSample
    tensor_lists: Mapping[str, list[Tensor]]


def read_tokenized(
    example: Mapping[str, Any],
    name: str,
    joins: Mapping[str, Join],
    pack_keys: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> TokenizedSample:
    """Reads a sample, and sorts its keys into tokens and media.

    Args:
        example: The sample.
        name: The name of the sample in errors.
        joins: The joins of the media keys.
        pack_keys: Further token-aligned keys, of which the first is required.
        ignored: Keys that are not read.

    Raises:
        ConfigError: A key is missing or undeclared, or the token tensors differ in length.
    """
    values = {k: v for k, v in example.items() if v is not None and k not in (JOINS_KEY, *ignored)}
    counts = {kind: values.pop(f"n_{kind}s") for kind in _KINDS if f"n_{kind}s" in values}
    _check_required(values, name, pack_keys)
    tokens: dict[str, Tensor] = {}
    media: dict[str, Tensor] = {}
    tensor_lists: dict[str, list[Tensor]] = {}
    for key, value in values.items():
        if key in (*TOKEN_KEYS, *pack_keys):
            tokens[key] = _along_tokens(key, torch.as_tensor(value))
        elif key not in joins:
            raise ConfigError(
                f"{name} has the undeclared key {key!r}: expected a token-aligned key, or one of "
                f"the media keys {', '.join(joins) or '(none)'}; remove it, or declare it in the "
                "joins of a collator that you register for the processor"
            )
        elif key in PIXELS and isinstance(value, list | tuple):
            tensor_lists[key] = [torch.as_tensor(item) for item in value]
        else:
            media[key] = torch.as_tensor(value)
    length = _common_length(tokens, name)
    for kind, count in _count_rows({**media, **tensor_lists}, joins).items():
        counts.setdefault(kind, count)
    unknown = torch.full((length,), -1)
    sample = EncodedSample(
        tokens=tokens,
        message_ids=unknown,
        media_ids=unknown,
        media=media,
        media_counts={kind: int(count) for kind, count in counts.items() if count},
    )
    return TokenizedSample(sample, tensor_lists)


def _check_required(values: Mapping[str, Any], name: str, pack_keys: Sequence[str]) -> None:
    required = ("input_ids", "attention_mask", "labels", *pack_keys[:1])
    missing = [key for key in required if key not in values]
    if missing:
        raise ConfigError(
            f"{name} has no {', '.join(missing)}: found {', '.join(values)}; add the missing keys"
        )


def _common_length(tokens: Mapping[str, Tensor], name: str) -> int:
    """Returns the number of tokens, and refuses tensors of another length."""
    length = len(tokens["input_ids"])
    for key, value in tokens.items():
        if len(value) != length:
            raise ConfigError(
                f"{name} has token tensors of different lengths: found {length} input_ids, but "
                f"{len(value)} {key}; make them equally long"
            )
    return length


def _count_rows(media: Mapping[str, Any], joins: Mapping[str, Join]) -> dict[str, int]:
    """Counts the media items by the keys with one row per item."""
    return {
        kind: max((len(media[key]) for key in media if joins[key].rows == kind), default=0)
        for kind in _KINDS
    }


def join_media(items: Sequence[TokenizedSample], joins: Mapping[str, Join]) -> dict[str, Any]:
    """Joins the media of the samples, and counts the items per sample."""
    merged = {key for item in items for key in item.tensor_lists}
    if joins is MEDIA_JOINS:  # the sizes may differ between packs
        merged |= {key for item in items for key in item.sample.media if key in PIXELS}
    kept = [
        attrs.evolve(i.sample, media={k: v for k, v in i.sample.media.items() if k not in merged})
        for i in items
    ]
    batch: dict[str, Any] = {**joined_media(kept, joins, "float32")}
    for key in sorted(merged):
        values = ({**item.sample.media, **item.tensor_lists}.get(key) for item in items)
        batch[key] = _merge_media_values([value for value in values if value is not None])
    return {**batch, **media_counts([item.sample for item in items])}


def _merge_media_values(values: Sequence[Any]) -> Tensor | list[Any]:
    """Joins the pixels of several samples in bfloat16.

    Args:
        values: The pixels of each sample: a tensor with one row per item, or a list of tensors.

    Returns:
        One tensor if all values are tensors of one size, otherwise a list of one tensor per item.

    Raises:
        ConfigError: There are no values, or one is neither a tensor nor a list.
    """
    if not values:
        raise ConfigError(
            "values is empty: found no media, expected at least one tensor or list; omit the call"
        )
    wrong = [value for value in values if not isinstance(value, Tensor | list | tuple)]
    if wrong:
        raise ConfigError(
            f"media cannot be joined: found {type(wrong[0]).__name__}, expected a tensor or a list "
            "of tensors; convert it to one"
        )
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) == len(values) and len({value.shape[1:] for value in tensors}) == 1:
        return torch.cat(tensors).to(torch.bfloat16)
    items = [item for value in values for item in value]
    return [item.to(torch.bfloat16) if isinstance(item, Tensor) else item for item in items]


def _along_tokens(key: str, value: Tensor) -> Tensor:
    """Moves the axis of the tokens to the front."""
    if key == "position_ids":
        return value.movedim(-1, 0)
    return value if key == "cross_attention_mask" else value.reshape(-1)
