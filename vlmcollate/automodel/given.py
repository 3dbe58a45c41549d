"""Reading samples and packs that are tokenized already, of this library or of Automodel's.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.automodel.conventions import PIXELS, TOKEN_KEYS
from vlmcollate.batch.stacking import joined_media, media_counts
from vlmcollate.errors import ConfigError
from vlmcollate.media import Concatenate, Join
from vlmcollate.sample import EncodedSample

JOINS_KEY = "media_joins"
"""The key under which a pack brings the rules by which its media joins that of others."""
MEDIA_JOINS: Mapping[str, Join] = {
    "pixel_values": Concatenate(),
    "image_grid_thw": Concatenate(rows="image"),
    "image_position_ids": Concatenate(),
    "pixel_values_videos": Concatenate(),
    "video_grid_thw": Concatenate(rows="video"),
    "second_per_grid_ts": Concatenate(rows="video"),
}
"""How media joins if neither a processor nor a pack brings rules: the keys that Automodel knows."""
_KINDS = ("image", "video", "audio")


@attrs.frozen(eq=False)
class Given:
    """A sample that is tokenized already.

    Attributes:
        sample: Its tokens, and the media that is one tensor a key.
        loose: The media that is a list of tensors of several sizes.
    """

    sample: EncodedSample
    loose: Mapping[str, list[Tensor]]


def read(
    example: Mapping[str, Any],
    name: str,
    joins: Mapping[str, Join],
    pack_keys: Sequence[str] = (),
    skipped: Sequence[str] = (),
) -> Given:
    """Reads a sample, each of its keys declared to be tokens or media.

    Args:
        example: The sample.
        name: What errors call it.
        joins: The media keys.
        pack_keys: More keys along the tokens, of which the first is needed.
        skipped: Keys that are read elsewhere.

    Raises:
        ConfigError: A key is not declared, missing, or of another length.
    """
    given = {k: v for k, v in example.items() if v is not None and k not in (JOINS_KEY, *skipped)}
    counts = {kind: given.pop(f"n_{kind}s") for kind in _KINDS if f"n_{kind}s" in given}
    needed = ("input_ids", "attention_mask", "labels", *pack_keys[:1])
    missing = [key for key in needed if key not in given]
    if missing:
        raise ConfigError(f"{name} has no {', '.join(missing)}; it holds {', '.join(given)}")
    tokens: dict[str, Tensor] = {}
    media: dict[str, Tensor] = {}
    loose: dict[str, list[Tensor]] = {}
    for key, value in given.items():
        if key in (*TOKEN_KEYS, *pack_keys):
            tokens[key] = _along_tokens(key, torch.as_tensor(value))
        elif key not in joins:
            raise ConfigError(
                f"{name} holds the undeclared key {key!r}: it runs along no tokens, and the "
                f"media keys are {', '.join(joins) or 'none'}; remove it, or declare it in the "
                "media_joins of a collator that you register for the processor"
            )
        elif key in PIXELS and isinstance(value, list | tuple):
            loose[key] = [torch.as_tensor(item) for item in value]
        else:
            media[key] = torch.as_tensor(value)
    length = len(tokens["input_ids"])
    for key, value in tokens.items():
        if len(value) != length:
            raise ConfigError(f"{name} has {length} input_ids, but {len(value)} {key}")
    sizes = {key: len(value) for key, value in media.items()}
    sizes |= {key: len(values) for key, values in loose.items()}
    for kind in _KINDS:
        rows = [size for key, size in sizes.items() if joins[key].rows == kind]
        counts.setdefault(kind, max(rows, default=0))
    unknown = torch.full((length,), -1)
    sample = EncodedSample(
        tokens=tokens,
        message_ids=unknown,
        media_ids=unknown,
        media=media,
        media_counts={kind: int(count) for kind, count in counts.items() if count},
    )
    return Given(sample, loose)


def media_of(items: Sequence[Given], joins: Mapping[str, Join]) -> dict[str, Any]:
    """The media of all samples, and how many items each has."""
    flat = {key for item in items for key in item.loose}
    if joins is MEDIA_JOINS:  # the sizes may differ from pack to pack
        flat |= {key for item in items for key in item.sample.media if key in PIXELS}
    kept = [
        attrs.evolve(i.sample, media={k: v for k, v in i.sample.media.items() if k not in flat})
        for i in items
    ]
    batch: dict[str, Any] = {**joined_media(kept, joins)}
    for key in sorted(flat):
        both = ({**item.sample.media, **item.loose}.get(key) for item in items)
        batch[key] = _merge_media_values([value for value in both if value is not None])
    return {**batch, **media_counts([item.sample for item in items])}


def _merge_media_values(values: Sequence[Any]) -> Tensor | list[Any]:
    """Joins the pixels of several samples, in bfloat16.

    Args:
        values: A tensor each, with a row an item, or a list of tensors.

    Returns:
        One tensor if all are tensors of one size; otherwise a list with a tensor an item.

    Raises:
        ConfigError: There is no value, or one is neither.
    """
    if not values:
        raise ConfigError("no media to join: found no value, expected at least one; leave it out")
    wrong = [value for value in values if not isinstance(value, Tensor | list | tuple)]
    if wrong:
        raise ConfigError(
            f"media cannot be joined: found {type(wrong[0]).__name__}, expected a tensor or a list "
            "of tensors; convert it"
        )
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) == len(values) and len({value.shape[1:] for value in tensors}) == 1:
        return torch.cat(tensors).to(torch.bfloat16)
    items = [item for value in values for item in value]
    return [item.to(torch.bfloat16) if isinstance(item, Tensor) else item for item in items]


def _along_tokens(key: str, value: Tensor) -> Tensor:
    """A token tensor with the tokens as its first axis."""
    if key == "position_ids":
        return value.movedim(-1, 0)
    return value if key == "cross_attention_mask" else value.reshape(-1)
