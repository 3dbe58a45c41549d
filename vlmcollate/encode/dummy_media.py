"""Media that stands in where there is none, so that every rank runs every tower of a model.

Shapes: L a sample's tokens, P the placeholder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.conversation import MediaKind
from vlmcollate.media import Join
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

TOWERS: dict[MediaKind, tuple[str, ...]] = {"image": ("image", "video"), "audio": ("audio",)}
"""For each kind of placeholder, the kinds of media that run the same tower."""


@attrs.frozen(eq=False)
class DummyMedia:
    """What stands in for missing media, ready to be appended.

    Attributes:
        pieces: For each kind, the tokens and the tensors.
        joins: How the tensors join those of a sample.
    """

    pieces: Mapping[MediaKind, EncodedSample]
    joins: Mapping[str, Join]

    def added(self, sample: EncodedSample, batch: Sequence[EncodedSample]) -> EncodedSample:
        """The sample with what stands in for the media that the batch lacks."""
        for kind in _idle_towers(batch, list(self.pieces)):
            sample = appended(sample, self.pieces[kind], self.joins)
        return sample

    def room(self, sample: EncodedSample) -> int:
        """How many tokens that is for a sample by itself."""
        return sum(len(self.pieces[kind]) for kind in _idle_towers([sample], list(self.pieces)))


def blank(kind: MediaKind, sampling_rate: int | None) -> object:
    """A small white image, or half a second of silence."""
    if kind == "image":
        return Image.new("RGB", (56, 56), "white")
    return np.zeros((sampling_rate or 16000) // 2, np.float32)


def untrained(piece: EncodedSample) -> EncodedSample:
    """The placeholder's tokens as no token looks at them and none is trained."""
    ignored = {
        "attention_mask": torch.zeros_like(piece.input_ids),
        "labels": torch.full_like(piece.input_ids, IGNORE_INDEX),
    }
    nobody = torch.full_like(piece.message_ids, -1)
    return attrs.evolve(piece, tokens={**piece.tokens, **ignored}, message_ids=nobody)


def _idle_towers(samples: Sequence[EncodedSample], kinds: Sequence[MediaKind]) -> list[MediaKind]:
    """The kinds of placeholder whose tower no sample runs."""
    used = {kind for sample in samples for kind, count in sample.media_counts.items() if count}
    return [kind for kind in kinds if not used.intersection(TOWERS[kind])]


def appended(
    sample: EncodedSample, piece: EncodedSample, joins: Mapping[str, Join]
) -> EncodedSample:
    """A sample of L tokens with a placeholder of P behind them, and its media behind its own."""
    items = sum(sample.media_counts.values())
    media_ids = torch.where(piece.media_ids >= 0, piece.media_ids + items, -1)
    media = dict(sample.media)
    for key, value in piece.media.items():
        media[key] = joins[key]([media[key], value], key=key) if key in media else value
    counts = dict(sample.media_counts)
    for kind, count in piece.media_counts.items():
        counts[kind] = counts.get(kind, 0) + count
    return attrs.evolve(
        sample,
        tokens=_joined(sample.tokens, piece.tokens),
        message_ids=torch.cat([sample.message_ids, piece.message_ids]),
        media_ids=torch.cat([sample.media_ids, media_ids]),
        media=media,
        media_counts=counts,
    )


def _joined(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Token tensors one behind the other, with zeros for a key that one of them lacks."""
    length, more = len(first["input_ids"]), len(second["input_ids"])
    joined = {}
    for key in {**first, **second}:
        a, b = first.get(key), second.get(key)
        if a is None and b is not None:
            a = b.new_zeros(length, *b.shape[1:])
        if b is None and a is not None:
            b = a.new_zeros(more, *a.shape[1:])
        if a is not None and b is not None:
            joined[key] = torch.cat([a, b])
    return joined
