"""Writes the message of a failure, and reads parts of a conversation.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.explain.mask_text import mask_text
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import describe
from vlmcollate.testing.laws.for_all import Chat, LawFailure, indent

_TOKEN_TEXT_LIMIT = 700
"""The maximum number of characters of a sample's tokens in a message."""
_VALUE_LIMIT = 300
"""The maximum number of characters of a value in a message."""

_NOT_GIVEN = object()


def failure(
    problem: str,
    remedy: str,
    *,
    messages: Chat | None = None,
    sample: EncodedSample | None = None,
    collator: BaseCollator | None = None,
    expected: object = _NOT_GIVEN,
    found: object = _NOT_GIVEN,
) -> LawFailure:
    """Makes the failure of a law from the problem, example and remedy.

    Args:
        problem: The problem and its location.
        remedy: The change that fixes it, in the imperative.
        messages: The conversation that breaks the law.
        sample: The encoded conversation; its trained tokens are shown in double brackets.
        collator: The collator that encoded it.
        expected: The expected value, if it is known.
        found: The value that was found, if there is one.
    """
    lines = [problem]
    if expected is not _NOT_GIVEN:
        lines.append(f"expected: {_shorten(expected)}")
    if found is not _NOT_GIVEN:
        lines.append(f"found:    {_shorten(found)}")
    if sample is not None and collator is not None:
        shown = mask_text(sample, collator.processor).strip()
        if len(shown) > _TOKEN_TEXT_LIMIT:
            half = _TOKEN_TEXT_LIMIT // 2
            shown = f"{shown[:half]} ... {shown[-half:]}"
        lines += ["tokens, trained ones in [[ ]]:", indent(shown)]
        lines += [f"label strategy: {sample.label_strategy or type(collator.labels).__name__}"]
    if messages is not None:
        lines += ["conversation:", indent(describe(messages))]
    lines.append(f"what to change: {remedy}")
    return LawFailure("\n".join(lines))


def trained_runs(ids: Tensor, labels: Tensor) -> list[list[int]]:
    """Returns the ids of each run of trained tokens."""
    runs: list[list[int]] = []
    inside = False
    for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
        if label != IGNORE_INDEX:
            if not inside:
                runs.append([])
            runs[-1].append(token)
        inside = label != IGNORE_INDEX
    return runs


def parts_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the content of a message as a list of parts."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(message: Mapping[str, Any]) -> str:
    """Returns the text of a message."""
    return "".join(part["text"] for part in parts_of(message) if part["type"] == "text")


def unused_letters(texts: Iterable[str]) -> str:
    """Returns letters that occur in none of the texts."""
    letters, joined = "zq", "\n".join(texts)
    while letters in joined:
        letters += "q"
    return letters


def media_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the media parts of a message."""
    return [part for part in parts_of(message) if part["type"] != "text"]


def images_of(messages: Chat) -> list[Any]:
    """Returns the images of a conversation in order."""
    return [p["image"] for m in messages for p in media_of(m) if p["type"] == "image"]


def videos_of(messages: Chat) -> list[Any]:
    """Returns the videos of a conversation in order."""
    return [p["video"] for m in messages for p in media_of(m) if p["type"] == "video"]


def with_text(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Replaces the text of a message; its media comes before the new text."""
    return {**message, "content": [*media_of(message), {"type": "text", "text": text}]}


def equal_tensors(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Whether tensors are equal in dtype, shape and value."""
    return all(
        a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        for a, b in zip(left, right, strict=True)
    )


def _shorten(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _VALUE_LIMIT else f"{shown[:_VALUE_LIMIT]} ..."
