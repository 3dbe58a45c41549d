"""The sizes of the media of one source of a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, MediaKind, MediaOptions, MediaPart
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.formats.fields import Fields
from vlmcollate.formats.media_options import media_part
from vlmcollate.media.processing.resizing import Resizer

SIZES: dict[str, tuple[MediaKind, ...]] = {
    "min_pixels": ("image", "video"),
    "max_pixels": ("image", "video"),
    "total_pixels": ("video",),
}
"""The sizes that a source may set, with the kinds of media that have them."""

Sizes = Mapping[MediaKind, MediaOptions]


def sizes_of(options: Mapping[str, Any], source: str) -> Sizes:
    """Returns the sizes that a source's media has unless an item sets its own.

    Raises:
        ConfigError: A size is wrong.
    """
    where = f"per_source[{source!r}]"
    found: dict[MediaKind, MediaOptions] = {}
    kinds: tuple[MediaKind, ...] = ("image", "video")
    for kind in kinds:
        given = {k: v for k, v in options.items() if kind in SIZES.get(k, ())}
        if not given:
            continue
        try:
            part = media_part(kind, None, where, Fields(given, where))
        except ConversationError as error:
            raise ConfigError(str(error)) from error
        found[kind] = part.options
    return found


def check_sizes(sizes: Sizes, collator: BaseCollator, source: str) -> None:
    """Refuses sizes if the processor takes no limits of pixels for any kind that has them.

    Raises:
        ConfigError: It takes none.
    """
    frames = collator.family.frame_tokens
    if sizes and not any(Resizer.of(collator.processor, kind, frames) for kind in sizes):
        raise ConfigError(
            f"per_source[{source!r}] sets pixels, but the processor of {type(collator).__name__} "
            "takes no limits of pixels; resize the images in the dataset, or set the size of the "
            "processor"
        )


def with_sizes(conversation: Conversation, sizes: Sizes) -> Conversation:
    """Returns a conversation whose media has sizes, but for the items that set their own."""
    messages = tuple(
        attrs.evolve(message, content=tuple(_sized(part, sizes) for part in message.content))
        for message in conversation.messages
    )
    return attrs.evolve(conversation, messages=messages)


def _sized(part: Any, sizes: Sizes) -> Any:
    if not isinstance(part, MediaPart) or part.kind not in sizes or part.options.resizes:
        return part
    own = attrs.asdict(sizes[part.kind], recurse=False, filter=lambda _, value: value is not None)
    return attrs.evolve(part, options=attrs.evolve(part.options, **own))
