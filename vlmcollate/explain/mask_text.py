"""The label mask as text.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any, Literal

from vlmcollate.family import TOKEN_TYPES
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

TokenClass = Literal["trained", "message", "template", "media"]

# Characters that move a terminal's cursor, or hide or reorder its text, are replaced.
_VISIBLE = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) != "\n"}
    | {0x7F: "\u2421", ord("\t"): "\u2192\t"}
    | {
        code: f"<U+{code:04X}>"
        for codes in (range(0x80, 0xA0), range(0x202A, 0x202F), range(0x2066, 0x206A))
        for code in codes
    }
)
_EASILY_MISSED = re.compile(r"^ +| +$| {2,}", re.MULTILINE)


def mask_text(sample: EncodedSample, processor: Any) -> str:
    """Returns one sample's tokens as text, with the trained ones in `[[` and `]]`.

    Args:
        sample: A labelled sample.
        processor: The processor whose tokenizer produced its ids.

    Raises:
        KeyError: The sample is not labelled.
    """
    runs = mask_runs(sample, processor)
    return "".join(f"[[{text}]]" if kind == "trained" else text for kind, text in runs)


def mask_runs(sample: EncodedSample, processor: Any) -> Iterator[tuple[TokenClass, str]]:
    """Yields the class and the text of each run of tokens of one class.

    Each media item is one mark, such as `<image 1: 12 tokens>`; a newline is a `↵` before the line
    break, and spaces that are easy to miss are dots.

    Args:
        sample: A labelled sample.
        processor: The processor whose tokenizer produced its ids.

    Raises:
        KeyError: The sample is not labelled.
    """
    for kind, media, run in _runs(sample):
        if kind == "media":
            name = f"{_kind_of(sample, run.start)} {media + 1}"
            shown = f"<{name}: {len(run)} token{'' if len(run) == 1 else 's'}>"
        else:
            shown = visible(_decoded(sample, processor, run))
        yield kind, shown


def trained_texts(sample: EncodedSample, processor: Any) -> list[str]:
    """Decodes the trained tokens.

    Args:
        sample: A labelled sample.
        processor: The processor whose tokenizer produced its ids.

    Returns:
        The text of every run of trained tokens, in order, including its stop token.

    Raises:
        KeyError: The sample is not labelled.
    """
    return [_decoded(sample, processor, run) for kind, _, run in _runs(sample) if kind == "trained"]


def visible(text: str) -> str:
    r"""Makes whitespace and control characters visible.

    Args:
        text: Any text.

    Returns:
        The text, safe to print on a terminal.

    Example:
        >>> visible("one  two \n")
        'one··two·↵\n'
    """
    dotted = _EASILY_MISSED.sub(lambda spaces: "·" * len(spaces[0]), text)
    return dotted.translate(_VISIBLE).replace("\n", "↵\n")


def _runs(sample: EncodedSample) -> Iterator[tuple[TokenClass, int, range]]:
    """Yields the runs of tokens of one class, with their media item or -1."""
    columns = zip(
        (sample.labels != IGNORE_INDEX).tolist(),
        sample.message_ids.tolist(),
        sample.media_ids.tolist(),
        strict=True,
    )
    classes = [
        (_class_of(trained=trained, message=message, media=media), media)
        for trained, message, media in columns
    ]
    start = 0
    for (kind, media), run in groupby(classes):
        end = start + sum(1 for _ in run)
        yield kind, media, range(start, end)
        start = end


def _class_of(*, trained: bool, message: int, media: int) -> TokenClass:
    if trained:
        return "trained"
    if media >= 0:
        return "media"
    return "message" if message >= 0 else "template"


def _decoded(sample: EncodedSample, processor: Any, run: range) -> str:
    """Decodes a run as a whole, since a character may take several tokens.

    The token before it is decoded too, and its text removed, since SentencePiece tokenizers drop a
    leading space.
    """
    tokenizer = processor.tokenizer

    def decode(start: int, end: int) -> str:
        ids = sample.input_ids[start:end].tolist()
        text: str = tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    if run.start:
        before, both = decode(run.start - 1, run.start), decode(run.start - 1, run.stop)
        if both.startswith(before) and "\ufffd" not in before:
            return both[len(before) :]
    return decode(run.start, run.stop)


def _kind_of(sample: EncodedSample, token: int) -> str:
    """Returns a media token's kind, by its type or the sample's only kind."""
    for key in ("mm_token_type_ids", "token_type_ids"):
        if key in sample.tokens:
            value = int(sample.tokens[key][token])
            return next((kind for kind, t in TOKEN_TYPES.items() if t == value), "media")
    kinds = [kind for kind, count in sample.media_counts.items() if count]
    return kinds[0] if len(kinds) == 1 else "media"
