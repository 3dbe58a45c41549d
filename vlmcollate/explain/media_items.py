"""The media of an encoded sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from vlmcollate.conversation import Conversation, MediaKind
from vlmcollate.family import TOKEN_TYPES
from vlmcollate.media import Video
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.sample import EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class MediaItem:
    """One image, video or audio item.

    Attributes:
        kind: Its kind.
        message: The index of its message.
        size: Its size in words.
        tokens: The number of its tokens.
        content: The decoded item: a PIL image, a `Video` or audio.
    """

    kind: MediaKind
    message: int
    size: str
    tokens: int
    content: Any


def media_items(
    sample: EncodedSample,
    whole: Conversation,
    conversation: Conversation,
    rendering: Rendering,
    loaded: Sequence[Any],
) -> list[MediaItem]:
    """Returns the media of a sample.

    Args:
        sample: The encoded sample.
        whole: The whole conversation.
        conversation: The encoded part of the conversation.
        rendering: The prompt of that part.
        loaded: The decoded media of the whole conversation.
    """
    kept = [i for i, m in enumerate(whole.messages) if any(m is n for n in conversation.messages)]
    pairs = zip(whole.media, loaded, strict=True)
    contents = [item for (message, _), item in pairs if message in kept]
    counts = np.bincount(sample.media_ids.numpy()[sample.media_ids.numpy() >= 0])
    items = [
        MediaItem(
            kind=span.kind,
            message=span.message,
            size=size_of(content),
            tokens=int(counts[i]) if i < len(counts) else 0,
            content=content,
        )
        for i, (span, content) in enumerate(zip(rendering.media, contents, strict=False))
    ]
    kinds = [k for k in TOKEN_TYPES for _ in range(sample.media_counts.get(k, 0))]
    known: list[MediaKind] = [item.kind for item in items]
    for i in range(len(items), len(counts)):  # dummy media, which no message holds
        kind: MediaKind = next((k for k in kinds if kinds.count(k) > known.count(k)), "image")
        known.append(kind)
        items.append(
            MediaItem(
                kind=kind, message=-1, size="dummy media", tokens=int(counts[i]), content=None
            )
        )
    return items


def size_of(content: Any) -> str:
    """Returns the size of a decoded item in words, such as `"640 x 480"`.

    Args:
        content: A PIL image, a `Video` or (N,) audio.
    """
    if isinstance(content, Video):
        count, height, width = content.frames.shape[:3]
        return f"{count} frames of {width} x {height}, {content.duration:.1f} s"
    if isinstance(content, np.ndarray):
        return f"{len(content):,} samples of audio"
    return f"{content.width} x {content.height}"
