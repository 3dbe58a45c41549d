"""How failures are told, and small readings of a conversation.

Shapes: L a sample's tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.explain.mask_text import mask_text
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import described
from vlmcollate.testing.laws.for_all import Chat, LawFailure, indented

_MOST_SHOWN = 700
_MOST_VALUES = 300


def failure(
    problem: str,
    change: str,
    *,
    messages: Chat | None = None,
    sample: EncodedSample | None = None,
    collator: BaseCollator | None = None,
    expected: object = None,
    found: object = None,
) -> LawFailure:
    """A law's failure, told for whoever has to mend it.

    Args:
        problem: What is wrong, with the place.
        change: What to change.
        messages: The conversation.
        sample: What it was encoded to, whose trained tokens are shown in double brackets.
        collator: What encoded it.
        expected: What should have been found.
        found: What was found.
    """
    lines = [problem]
    if expected is not None or found is not None:
        lines += [f"expected: {_short(expected)}", f"found:    {_short(found)}"]
    if sample is not None and collator is not None:
        shown = mask_text(sample, collator.processor, brackets=True).plain.strip()
        if len(shown) > _MOST_SHOWN:
            shown = f"{shown[: _MOST_SHOWN // 2]} ... {shown[-_MOST_SHOWN // 2 :]}"
        lines += ["tokens, trained ones in [[ ]]:", indented(shown)]
        lines += [f"label strategy: {sample.label_strategy or type(collator.labels).__name__}"]
    if messages is not None:
        lines += ["conversation:", indented(described(messages))]
    lines.append(f"what to change: {change}")
    return LawFailure("\n".join(lines))


def runs_of(ids: Tensor, labels: Tensor) -> list[list[int]]:
    """The runs of trained tokens, as ids."""
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
    """The content of a message as a list of parts."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message."""
    return "".join(part["text"] for part in parts_of(message) if part["type"] == "text")


def unsaid(said: Iterable[str]) -> str:
    """Letters that stand in none of some texts."""
    letters, texts = "zq", "\n".join(said)
    while letters in texts:
        letters += "q"
    return letters


def media_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message that are no text."""
    return [part for part in parts_of(message) if part["type"] != "text"]


def pictures_of(messages: Chat) -> list[Any]:
    """The pictures of a conversation in order."""
    return [p["image"] for m in messages for p in media_of(m) if p["type"] == "image"]


def videos_of(messages: Chat) -> list[Any]:
    """The videos of a conversation in order."""
    return [p["video"] for m in messages for p in media_of(m) if p["type"] == "video"]


def with_text(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    """A message that says something else, with the same media before it."""
    return {**message, "content": [*media_of(message), {"type": "text", "text": text}]}


def same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    """Whether tensors are equal in dtype and value."""
    return all(
        a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        for a, b in zip(left, right, strict=True)
    )


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MOST_VALUES else f"{shown[:_MOST_VALUES]} ..."
