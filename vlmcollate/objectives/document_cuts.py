"""Finds where documents may be cut, so that no text and no media is lost.

Shapes: C cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from vlmcollate.conversation import Conversation
from vlmcollate.objectives.document_rows import plain_document
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

Ints = npt.NDArray[np.int64]
Cuts = tuple[Ints, Ints]
Encode = Callable[[Conversation], EncodedSample]


def find_cuts(sample: EncodedSample, conversation: Conversation, encode: Encode) -> Cuts:
    """Finds where a document may be cut: between tokens of text, and before media.

    A cut behind media would leave the next token of text without the tokens that predict it.

    Args:
        sample: The sample of the document.
        conversation: The document.
        encode: A function that encodes a part of it.

    Returns:
        The cuts and the starts of `EncodedDocument`.
    """
    is_text, begins = np.ones(len(sample), bool), np.zeros(len(sample), bool)
    for start, end in _media_spans(sample, conversation, encode):
        is_text[start:end] = False
        begins[start] = start > 0
    after_text, before_media = np.flatnonzero(is_text[1:] & is_text[:-1]), np.flatnonzero(begins)
    cuts = np.concatenate([after_text + 1, before_media])
    order = np.argsort(cuts)
    return cuts[order], np.concatenate([after_text, before_media])[order]


def _media_spans(
    sample: EncodedSample, conversation: Conversation, encode: Encode
) -> Iterator[tuple[int, int]]:
    """Yields the tokens of each media item, with the control tokens around it."""
    parts = [part for _, part in conversation.media]
    trains = (sample.labels != IGNORE_INDEX).numpy()
    places = [np.flatnonzero(sample.media_ids.numpy() == k) for k in range(len(parts))]
    nexts = [*(int(place[0]) for place in places[1:]), len(sample)][: len(parts)]
    tails: dict[str, int] = {}
    end = 0
    for part, place, following in zip(parts, places, nexts, strict=True):
        start, previous = int(place[0]), end
        while start > previous and not trains[start - 1]:
            start -= 1
        end = int(place[-1]) + 1
        behind = trains[end:following]
        if behind.any():
            end += int(behind.argmax())
        else:  # other media follows: its own tokens end where they end if it stands alone
            if part.kind not in tails:
                tails[part.kind] = _tail(encode(plain_document([part])))
            end = min(end + tails[part.kind], following)
        yield start, end


def _tail(alone: EncodedSample) -> int:
    """Returns the number of tokens behind media alone that belong to it."""
    last = int((alone.media_ids >= 0).nonzero()[-1])
    return int((alone.labels[last + 1 :] == IGNORE_INDEX).sum())
