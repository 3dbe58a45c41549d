"""Shortening what is too long.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import attrs
import torch

from vlmcollate.errors import LabelError
from vlmcollate.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample


def length_without_cut_media(sample: EncodedSample, most: int) -> int:
    """The most tokens up to `most` whose end falls inside no media item."""
    length = min(most, len(sample))
    media_ids = sample.media_ids
    if length == len(sample) or media_ids[length] < 0:
        return length
    return min(length, int((media_ids == media_ids[length]).nonzero()[0]))


def cut(sample: EncodedSample, length: int) -> EncodedSample:
    """The first tokens of a sample."""
    return attrs.evolve(
        sample,
        tokens={key: value[:length] for key, value in sample.tokens.items()},
        message_ids=sample.message_ids[:length],
        media_ids=sample.media_ids[:length],
    )


def with_labels_of(longer: EncodedSample, shorter: EncodedSample) -> EncodedSample:
    """The labels of the same conversation with more media, for the text that both have."""
    there, here = longer.media_ids < 0, shorter.media_ids < 0
    count = int(here.sum())
    if not torch.equal(longer.input_ids[there][:count], shorter.input_ids[here]):
        raise LabelError(
            "the text encodes differently once media is cut off; use on_overlong='drop'"
        )
    tokens = dict(shorter.tokens)
    for key, fill in (("labels", IGNORE_INDEX), ("loss_weights", 0)):
        if key in longer.tokens:
            tokens[key] = torch.full((len(shorter),), fill, dtype=longer.tokens[key].dtype)
            tokens[key][here] = longer.tokens[key][there][:count]
    return attrs.evolve(shorter, tokens=tokens, label_strategy=longer.label_strategy)


def shortened(rendering: Rendering, media: int) -> Rendering:
    """The rendering up to the first placeholder whose media was given up."""
    end = rendering.media[media].start
    return attrs.evolve(
        rendering,
        text=rendering.text[:end],
        given=tuple(attrs.evolve(g, end=min(g.end, end)) for g in rendering.given if g.start < end),
        media=rendering.media[:media],
        turns=tuple(attrs.evolve(t, end=min(t.end, end)) for t in rendering.turns if t.start < end),
    )
