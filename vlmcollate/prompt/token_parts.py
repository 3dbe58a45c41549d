"""Finds the tokens of each part of a text, of which a token may touch several.

A token that several parts touch belongs to the last one of which it holds more than whitespace, so
that no part loses its first word to the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmcollate.tokens.tokens import Tokens

Stretch = tuple[int, int]


def tokens_of(parts: Sequence[Stretch], text: str, tokens: Tokens) -> list[Stretch]:
    """Returns the tokens of each part: first, last + 1.

    Args:
        parts: The start and end of each part in the text, in order, without overlaps.
        text: The text.
        tokens: Its tokens.
    """
    edges = np.array(parts, np.int64).reshape(-1, 2)
    places = tokens.starts.searchsorted(edges)
    before = (places - 1).clip(0)
    is_cut = (places > 0) & (tokens.ends[before] > edges)  # by the start or the end of a part
    found: list[Stretch] = [(a, b) for a, b in places.tolist()]
    for k in np.flatnonzero(is_cut.any(axis=1)).tolist():
        (start, end), (cut_at_start, cut_at_end) = found[k], is_cut[k].tolist()
        if cut_at_start and _owner(start - 1, k, parts, text, tokens) == k:
            start -= 1
        if cut_at_end and _owner(end - 1, k, parts, text, tokens) != k:
            end -= 1
        found[k] = start, max(start, end)
    return found


def _owner(token: int, k: int, parts: Sequence[Stretch], text: str, tokens: Tokens) -> int | None:
    """Returns the part that a token belongs to, given one near it."""
    start, end = int(tokens.starts[token]), int(tokens.ends[token])
    first, behind = k, k + 1
    while first and parts[first - 1][1] > start:
        first -= 1
    while behind < len(parts) and parts[behind][0] < end:
        behind += 1
    near = enumerate(parts[first:behind], first)
    inside = [(p, text[max(a, start) : min(b, end)]) for p, (a, b) in near]
    touched = [p for p, piece in inside if piece]
    solid = [p for p, piece in inside if piece.strip()]
    return next(reversed(solid or touched), None)
