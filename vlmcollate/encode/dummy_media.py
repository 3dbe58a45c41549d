"""Dummy media, masked from attention, so that every rank runs every encoder.

Shapes: L a sample's tokens, P those of the dummy media.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.batch.media import joined_bytes
from vlmcollate.conversation import MediaKind
from vlmcollate.media import Join
from vlmcollate.prompt.rendering import MediaSpan, Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

DummyMediaPolicy = Literal["never", "batch", "sample"]
ENCODERS: dict[MediaKind, tuple[str, ...]] = {"image": ("image", "video"), "audio": ("audio",)}
"""For each kind of dummy media, the kinds that run the same encoder."""


@attrs.frozen(eq=False)
class DummyMedia:
    """Dummy media of each kind that has an encoder of its own, ready to be appended.

    Attributes:
        pieces: The tokens and tensors of each kind.
        joins: The joining rules of the tensors.
    """

    pieces: Mapping[MediaKind, EncodedSample]
    joins: Mapping[str, Join]

    @classmethod
    def of(
        cls,
        placeholders: Mapping[MediaKind, str],
        sampling_rate: int | None,
        joins: Mapping[str, Join],
        encode: Callable[[Rendering, Any], EncodedSample],
    ) -> DummyMedia:
        """Encodes dummy media.

        Args:
            placeholders: The placeholder of each kind that the collator supports.
            sampling_rate: The model's audio sampling rate in Hz.
            joins: The joining rules of the tensors.
            encode: A function that returns the sample of a one-placeholder prompt and its item.
        """
        pieces: dict[MediaKind, EncodedSample] = {}
        for kind in ENCODERS:
            text = placeholders.get(kind)
            if text:  # an empty one stands for a page outside the text, which every sample has
                piece = encode(alone(kind, text), blank(kind, sampling_rate))
                pieces[kind] = ignored(piece)
        return cls(pieces, joins)

    def add(self, sample: EncodedSample, batch: Sequence[EncodedSample]) -> EncodedSample:
        """Adds dummy media for every encoder that the batch leaves idle."""
        for kind in _idle(batch, list(self.pieces)):
            sample = appended(sample, self.pieces[kind], self.joins)
        return sample

    def room(self, sample: EncodedSample) -> int:
        """Returns the number of tokens that a sample alone would get."""
        return sum(len(self.pieces[kind]) for kind in _idle([sample], list(self.pieces)))


def alone(kind: MediaKind, placeholder: str) -> Rendering:
    """Returns a prompt of one placeholder."""
    span = MediaSpan(0, len(placeholder), -1, kind)
    return Rendering(text=placeholder, caller_spans=(), media=(span,))


def bare_placeholders(
    kinds: Sequence[MediaKind], placeholders: Mapping[MediaKind, str]
) -> Rendering:
    """Returns a prompt of placeholders alone."""
    spans, text = [], ""
    for kind in kinds:
        spans.append(MediaSpan(len(text), len(text) + len(placeholders[kind]), -1, kind))
        text += placeholders[kind]
    return Rendering(text=text, caller_spans=(), media=tuple(spans))


def blank(kind: MediaKind, sampling_rate: int | None) -> object:
    """Returns a small white image, or half a second of silence."""
    if kind == "image":
        return Image.new("RGB", (56, 56), "white")
    return np.zeros((sampling_rate or 16000) // 2, np.float32)


def ignored(piece: EncodedSample) -> EncodedSample:
    """Returns dummy media that no token attends to and that has no label."""
    masked = {
        "attention_mask": torch.zeros_like(piece.input_ids),
        "labels": torch.full_like(piece.input_ids, IGNORE_INDEX),
    }
    no_message = torch.full_like(piece.message_ids, -1)
    return attrs.evolve(piece, tokens={**piece.tokens, **masked}, message_ids=no_message)


def _idle(samples: Sequence[EncodedSample], kinds: Sequence[MediaKind]) -> list[MediaKind]:
    """Returns the kinds of dummy media whose encoder no sample runs."""
    used = {kind for sample in samples for kind, count in sample.media_counts.items() if count}
    return [kind for kind in kinds if not used.intersection(ENCODERS[kind])]


def appended(
    sample: EncodedSample, piece: EncodedSample, joins: Mapping[str, Join]
) -> EncodedSample:
    """Appends P tokens of dummy media, and its tensors, to a sample."""
    items = sum(sample.media_counts.values())
    media_ids = torch.where(piece.media_ids >= 0, piece.media_ids + items, -1)
    media, tables = joined_bytes([sample, piece], joins)
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
        pixel_tables=tables,
    )


def _joined(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Concatenates token tensors, with zeros for a key that one side lacks."""
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
