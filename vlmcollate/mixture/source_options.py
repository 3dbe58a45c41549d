"""The options that one source of a mixture has of its own."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, MediaKind, MediaOptions, MediaPart
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.formats.fields import Fields
from vlmcollate.formats.media_options import media_part
from vlmcollate.media.processing.resizing import Resizer

_OF_BATCH = frozenset(
    ("processor", "padding", "shift_labels", "pixels", "counts", "dummy_media", "model_config")
)
"""The options of a collator that hold for all rows of a batch."""
_SIZES: dict[str, tuple[MediaKind, ...]] = {
    "min_pixels": ("image", "video"),
    "max_pixels": ("image", "video"),
    "total_pixels": ("video",),
}
"""The sizes that a source may set, with the kinds of media that have them."""

Sizes = Mapping[MediaKind, MediaOptions]


def check_source_options(options: Any, source: str) -> None:
    """Refuses options that no source can have of its own.

    Raises:
        ConfigError: An option holds for a whole batch, or is no size.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(
            f"per_source[{source!r}] is wrong: found {options!r:.60}, expected options by name, "
            "such as dict(max_pixels=262144)"
        )
    for name in options:
        if name in _OF_BATCH:
            raise ConfigError(
                f"per_source[{source!r}] sets {name}, which all rows of a batch share; set it in "
                "the collator"
            )
    sizes_of(options, source)


def sizes_of(options: Mapping[str, Any], source: str) -> Sizes:
    """Returns the sizes that a source's media has unless an item sets its own.

    Raises:
        ConfigError: A size is wrong.
    """
    found: dict[MediaKind, MediaOptions] = {}
    kinds: tuple[MediaKind, ...] = ("image", "video")
    for kind in kinds:
        given = {k: v for k, v in options.items() if kind in _SIZES.get(k, ())}
        if not given:
            continue
        try:
            part = media_part(kind, None, "", Fields(given, f"per_source[{source!r}]"))
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


def collator_of(collator: BaseCollator, options: Mapping[str, Any], source: str) -> BaseCollator:
    """Returns a collator with the options of a source.

    Raises:
        ConfigError: An option is unknown or wrong.
    """
    changes = {name: value for name, value in options.items() if name not in _SIZES}
    known = {field.name for field in attrs.fields(type(collator)) if field.init} - _OF_BATCH
    for name in changes:
        if name not in known:
            near = difflib.get_close_matches(str(name), [*known, *_SIZES], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove it"
            raise ConfigError(
                f"per_source[{source!r}] sets {name!r}, which is no option of "
                f"{type(collator).__name__}; {hint}"
            )
    try:
        changed: BaseCollator = attrs.evolve(collator, **changes) if changes else collator
    except ConfigError as error:
        raise ConfigError(f"per_source[{source!r}]: {error}") from error
    return changed


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
