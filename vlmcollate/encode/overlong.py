"""Shortening what is too long.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch

from vlmcollate.conversation import Conversation
from vlmcollate.encode.trace import run_stage
from vlmcollate.errors import LabelError, SampleTooLongError
from vlmcollate.prompt.chat import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

if TYPE_CHECKING:
    from vlmcollate.encode.sample_encoder import SampleEncoder


def fitted(
    encoder: SampleEncoder, conversation: Conversation, media: Sequence[Any], rendering: Rendering
) -> EncodedSample:
    """The labelled and refined sample, of at most `max_length` tokens.

    Raises:
        SampleTooLongError: It is longer, and the policy or what is left of it does not allow to
            shorten it.
    """
    collator = encoder.collator
    labelled = encoder.labelled(conversation, media, rendering)
    sample = collator.postprocess(labelled)
    if collator.max_length is None:
        return sample
    limit = collator.max_length - _room(encoder, sample)
    if len(sample) <= limit:
        return sample
    found: EncodedSample | None = None
    if collator.on_overlong == "truncate":
        found = _truncated(encoder, conversation, media, rendering, labelled, limit)
    elif collator.on_overlong == "drop_turns":
        found = _without_oldest_turns(encoder, conversation, media, limit)
    if found is not None and len(found) + _room(encoder, found) > collator.max_length:
        found = None  # its media was cut off, and the placeholder needs the room
    if found is None or (collator.require_labels and not (found.labels != IGNORE_INDEX).any()):
        raise SampleTooLongError(
            f"{len(sample)} tokens, max_length={collator.max_length}"
            + ("" if found is None else " would leave nothing to train")
            + f"; max_length={len(sample) + collator.max_length - limit} would hold it whole"
        )
    return found


def _room(encoder: SampleEncoder, sample: EncodedSample) -> int:
    """The tokens that placeholder media will add."""
    if encoder.collator.dummy_media == "never":
        return 0
    return encoder.placeholders.room(sample)


def _truncated(
    encoder: SampleEncoder,
    conversation: Conversation,
    media: Sequence[Any],
    rendering: Rendering,
    labelled: EncodedSample,
    limit: int,
) -> EncodedSample:
    """The longest beginning that cuts through no media, with the media that is left in it."""
    while True:
        sample = encoder.collator.postprocess(labelled)
        length = length_without_cut_media(sample, limit)
        kept = int(sample.media_ids[:length].max()) + 1 if length else 0
        if kept == len(media):
            return cut(sample, length)
        # the processor may tile fewer pictures in another way, so it is asked again
        media, rendering = media[:kept], shortened(rendering, kept)
        _, shorter = encoder.tokenized(conversation, media, rendering)
        labelled = with_labels_of(labelled, shorter)


def _without_oldest_turns(
    encoder: SampleEncoder, conversation: Conversation, media: Sequence[Any], limit: int
) -> EncodedSample | None:
    """The conversation without as many of its oldest exchanges as it takes, or `None`."""
    roles = [message.role for message in conversation.messages]
    starts = [i for i, role in enumerate(roles) if role == "user"]
    for start in starts[1:]:
        kept = [i for i in range(len(roles)) if i >= start or i < starts[0]]
        items = [m for m, (i, _) in zip(media, conversation.media, strict=True) if i in set(kept)]
        shorter = attrs.evolve(conversation, messages=tuple(conversation.messages[i] for i in kept))
        rendering = run_stage("render", encoder.collator.render, shorter)
        sample = encoder.collator.postprocess(encoder.labelled(shorter, items, rendering))
        if len(sample) <= limit:
            return sample
    return None


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
    differs = longer.input_ids[there][: int(here.sum())] != shorter.input_ids[here]
    if differs.any():  # the words at the cut had merged with what stood behind them
        at = int(here.nonzero()[int(differs.nonzero()[0])])
        if (shorter.media_ids[at:] >= 0).any():
            raise LabelError(
                "the text encodes differently once media is cut off; use on_overlong='drop'"
            )
        shorter = cut(shorter, at)
        here = shorter.media_ids < 0
    count = int(here.sum())
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
