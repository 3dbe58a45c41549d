"""Fills packs with documents, which are split so that no text and no media is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from vlmcollate.errors import SampleTooLongError
from vlmcollate.objectives.encoded_document import EncodedDocument
from vlmcollate.sample import EncodedSample


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
