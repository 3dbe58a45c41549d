"""Cuts documents into pieces, so that no text and no media is lost, and fills packs with them.

Shapes: L a document's tokens, C its cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import attrs
import numpy as np
import numpy.typing as npt
import torch

from vlmcollate.conversation import Conversation
from vlmcollate.errors import MediaMismatchError, SampleTooLongError
from vlmcollate.objectives.document_rows import plain_document
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

Ints = npt.NDArray[np.int64]
Cuts = tuple[Ints, Ints]
Encode = Callable[[Conversation], EncodedSample]


@attrs.frozen(kw_only=True, eq=False)
class EncodedDocument:
    """One encoded document of any length.

    Attributes:
        sample: The sample of the whole document.
        conversation: The document.
        encode: A function that encodes a part of the document, and shares its media.
        media_tokens: The tokens that stand for the features of media.
        cuts: (C,) int64, the tokens before which a piece may end.
        starts: (C,) int64, the token with which the next piece begins: the same, or the one before
            it if it is text, which predicts the next.
    """

    sample: EncodedSample
    conversation: Conversation
    encode: Encode
    media_tokens: frozenset[int]
    cuts: Ints
    starts: Ints

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def longest_part(self) -> int:
        """The number of tokens of the longest part that is never cut."""
        ends = np.append(self.cuts, len(self))
        return int((ends - np.append(0, self.starts)).max())

    def piece(self, start: int, stop: int) -> EncodedSample:
        """Returns the sample of some tokens, with the media that they stand for.

        Raises:
            MediaMismatchError: The processor makes other tokens of this media alone.
        """
        whole = self.sample
        if (start, stop) == (0, len(whole)):
            return whole
        media_ids = whole.media_ids[start:stop]
        piece = attrs.evolve(
            whole,
            tokens={key: value[start:stop] for key, value in whole.tokens.items()},
            message_ids=whole.message_ids[start:stop],
            media_ids=media_ids,
            media={},
            media_counts={},
            pixel_tables={},
        )
        items = media_ids[media_ids >= 0]
        if not len(items):
            return piece
        first, last = int(items[0]), int(items[-1])
        parts = [part for _, part in self.conversation.media][first : last + 1]
        alone = self.encode(plain_document(parts))
        if self._features(alone, 0) != self._features(piece, first):
            raise MediaMismatchError(
                "the processor expands the media of a part of this document to other tokens than "
                "in the whole, so it cannot be split; raise max_length, or split the row",
                where=parts[0].where,
            )
        return attrs.evolve(
            piece,
            media_ids=torch.where(media_ids >= 0, media_ids - first, -1),
            media=alone.media,
            media_counts=alone.media_counts,
            pixel_tables=alone.pixel_tables,
        )

    def _features(self, sample: EncodedSample, first: int) -> list[tuple[int, int]]:
        """Returns the media item and the token of each place that stands for a feature."""
        places = zip(sample.media_ids.tolist(), sample.input_ids.tolist(), strict=True)
        return [(k - first, token) for k, token in places if token in self.media_tokens]


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


def check_fits(document: EncodedDocument, limit: int) -> None:
    """Refuses a document with media that is longer than a pack.

    Raises:
        SampleTooLongError: A part that is never cut is too long.
    """
    if document.longest_part > limit:
        raise SampleTooLongError(
            f"holds media that is never cut, of up to {document.longest_part} tokens with those "
            f"around it, longer than max_length={limit}; raise it, or lower max_pixels"
        )


def fill_packs(documents: Iterable[EncodedDocument], limit: int) -> Iterator[list[EncodedSample]]:
    """Yields the pieces of each pack, in the order of the documents.

    Args:
        documents: The documents, of which no part that is never cut is longer than a pack.
        limit: The maximum number of tokens of a pack.
    """
    pack: list[EncodedSample] = []
    room = limit
    for document in documents:
        start = done = 0
        while done < len(document):
            stop = _stop(document, start, done, room, least=2 if pack else 1)
            if stop is None:  # the next part needs more room
                yield pack
                pack, room = [], limit
                continue
            pack.append(document.piece(start, stop))
            room -= stop - start
            done = stop
            if done < len(document):
                start = int(document.starts[np.searchsorted(document.cuts, done)])
    if pack:
        yield pack


def _stop(document: EncodedDocument, start: int, done: int, room: int, *, least: int) -> int | None:
    """Returns the end of the longest piece that fits and has at least so many tokens."""
    if len(document) - start <= room:
        return len(document)
    at = int(np.searchsorted(document.cuts, start + room, side="right")) - 1
    stop = int(document.cuts[at]) if at >= 0 else 0
    return stop if stop > done and stop - start >= least else None
