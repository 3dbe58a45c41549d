"""Shortens samples that are longer than `max_length`.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any, Literal, TypeVar

import attrs
import torch

from vlmcollate.conversation import Conversation
from vlmcollate.encode.exchanges import first_that_fits, with_messages, without_oldest
from vlmcollate.errors import LabelError, SampleTooLongError
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

S = TypeVar("S", bound=Sized)
OverlongPolicy = Literal["raise", "drop", "truncate", "drop_turns"]
_HELPING: tuple[OverlongPolicy, ...] = ("truncate", "drop_turns", "drop")


def too_long(
    length: int, room: int, limit: int, policy: OverlongPolicy, *, is_untrained: bool
) -> SampleTooLongError:
    """Returns the error for a sample that cannot be shortened.

    Args:
        length: Its tokens.
        room: The tokens of the dummy media that it needs.
        limit: The maximum.
        policy: The policy, which did not help.
        is_untrained: Whether it could be shortened, but nothing that trains would be left.
    """
    return SampleTooLongError(
        f"{length} tokens"
        + (f" and {room} of dummy media" if room else "")
        + f", longer than max_length={limit}"
        + (", which would leave nothing to train" if is_untrained else "")
        + f"; raise it to {length + room}, or set on_overlong to {others(policy)}"
    )


def others(policy: OverlongPolicy, *, cuts: bool = True) -> str:
    """Returns the policies other than this one that do not raise.

    Args:
        policy: A policy.
        cuts: Whether a sample may be truncated.
    """
    names = [p for p in _HELPING if p != policy and (cuts or p != "truncate")]
    return " or ".join(filter(None, (", ".join(map(repr, names[:-1])), repr(names[-1]))))


def truncate(
    labelled: EncodedSample,
    limit: int,
    *,
    media: Sequence[Any],
    rendering: Rendering,
    tokenize: Callable[[Sequence[Any], Rendering], EncodedSample],
    postprocess: Callable[[EncodedSample], EncodedSample],
) -> EncodedSample:
    """Truncates a sample, never inside media, and removes later media.

    Args:
        labelled: The whole sample, before `postprocess`.
        limit: The maximum number of tokens after `postprocess`.
        media: The decoded media.
        rendering: The prompt.
        tokenize: A function that returns the unlabelled sample of a prompt and its media.
        postprocess: The collator's stage.

    Raises:
        LabelError: The text encodes differently without the removed media.
    """
    while True:
        sample = postprocess(labelled)
        length = length_without_cut_media(sample, limit)
        kept = int(sample.media_ids[:length].max()) + 1 if length else 0
        if kept == len(media):
            return cut(sample, length)
        # the processor may tile fewer images differently, so it runs again
        media, rendering = media[:kept], shortened(rendering, kept)
        labelled = with_labels_of(labelled, tokenize(media, rendering))


def drop_oldest_turns(
    conversation: Conversation,
    media: Sequence[Any],
    limit: int,
    encode: Callable[[Conversation, Sequence[Any]], S],
) -> S | None:
    """Drops as few of the oldest exchanges as possible.

    Args:
        conversation: The whole conversation.
        media: Its decoded media.
        limit: The maximum number of tokens.
        encode: A function that returns the finished sample of a conversation and its media.

    Returns:
        The sample, or `None` if not even the last exchange fits.
    """

    def attempt(kept: tuple[int, ...]) -> S | None:
        items = [m for m, (i, _) in zip(media, conversation.media, strict=True) if i in kept]
        sample = encode(with_messages(conversation, kept), items)
        return sample if len(sample) <= limit else None

    holders = {i for i, _ in conversation.media}
    choices = without_oldest(conversation.messages)
    return first_that_fits(choices, attempt, holders.intersection)


def length_without_cut_media(sample: EncodedSample, most: int) -> int:
    """Returns the largest length up to `most` that does not end inside media."""
    length = min(most, len(sample))
    media_ids = sample.media_ids
    if length == len(sample) or media_ids[length] < 0:
        return length
    return min(length, int((media_ids == media_ids[length]).nonzero()[0]))


def cut(sample: EncodedSample, length: int) -> EncodedSample:
    """Returns the first tokens of a sample."""
    return attrs.evolve(
        sample,
        tokens={key: value[:length] for key, value in sample.tokens.items()},
        message_ids=sample.message_ids[:length],
        media_ids=sample.media_ids[:length],
    )


def with_labels_of(longer: EncodedSample, shorter: EncodedSample) -> EncodedSample:
    """Returns the shorter sample with the longer one's labels of their text."""
    there, here = longer.media_ids < 0, shorter.media_ids < 0
    differs = longer.input_ids[there][: int(here.sum())] != shorter.input_ids[here]
    if differs.any():  # the words at the cut were merged with the text after them
        at = int(here.nonzero()[int(differs.nonzero()[0])])
        if (shorter.media_ids[at:] >= 0).any():
            raise LabelError(
                "the text encodes differently without the removed media; use on_overlong='drop'"
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
    """Returns the rendering up to the first removed placeholder."""
    end = rendering.media[media].start
    return attrs.evolve(
        rendering,
        text=rendering.text[:end],
        caller_spans=tuple(
            attrs.evolve(g, end=min(g.end, end)) for g in rendering.caller_spans if g.start < end
        ),
        media=rendering.media[:media],
        turns=tuple(attrs.evolve(t, end=min(t.end, end)) for t in rendering.turns if t.start < end),
    )
