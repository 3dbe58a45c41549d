"""The content of messages: text, and the spellings of media parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vlmcollate.conversation import MediaKind, MediaPart, Part, TextPart
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import as_list, present_fields
from vlmcollate.formats.media_lists import MediaLists
from vlmcollate.plain_values import describe, plain_source, plain_text, show_all, unwrap

_SOURCE_KEYS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image", "image_url", "path", "url", "base64", "bytes"),
    "video": ("video", "video_url", "path", "url", "base64", "bytes"),
    "audio": ("audio", "audio_url", "path", "url", "base64", "bytes", "array"),
}
_KIND_OF_TYPE: dict[str, MediaKind] = {
    spelling: kind
    for kind in _SOURCE_KEYS
    for spelling in (kind, f"{kind}_url")  # as the type of a part, and as a key without a type
}


def read_content(value: object, where: str, lists: MediaLists) -> tuple[Part, ...]:
    """Reads the content of a message.

    Args:
        value: A string, a part, or a list of parts.
        where: The path of the content, such as `messages[0].content`.
        lists: The media lists of the example, for empty media parts.

    Returns:
        The parts in order.

    Raises:
        ConversationError: If the content is anything else, or one of its parts is wrong.
    """
    if isinstance(value, str):
        return (TextPart(plain_text(value, where)),)
    items = [value] if isinstance(value, Mapping) else as_list(value, where)
    return tuple(_read_part(item, f"{where}[{i}]", lists) for i, item in enumerate(items))


def _read_part(value: object, where: str, lists: MediaLists) -> Part:
    value = unwrap(value)
    if isinstance(value, str):
        return TextPart(plain_text(value, where))
    if not isinstance(value, Mapping):
        raise ConversationError(
            f'expected a part such as {{"type": "text", "text": ...}}, found {describe(value)}',
            where=where,
        )
    fields = present_fields(value)
    kind = _pop_kind(fields, where)
    if kind == "text":
        part: Part = _pop_text(fields, where)
    else:
        source = _pop_source(fields, kind, where, lists)
        part = MediaPart(kind, _with_rate(source, kind, fields), where)
    if fields:
        raise ConversationError(
            f"has unknown keys: {show_all(fields)}; remove them (sizes and limits are options of "
            "the processor)",
            where=where,
        )
    return part


def _pop_kind(fields: dict[str, Any], where: str) -> Literal["text"] | MediaKind:
    """The kind of a part by its type or, if it has none, by its only key of that name."""
    kind = unwrap(fields.pop("type", None))
    if kind is None:
        named = [key for key in ("text", *_KIND_OF_TYPE) if key in fields]
        kind = named[0] if len(named) == 1 else None
    if kind == "text":
        return "text"
    if isinstance(kind, str) and kind in _KIND_OF_TYPE:
        return _KIND_OF_TYPE[kind]
    raise ConversationError(
        f"expected a part of type 'text', 'image', 'video' or 'audio', found {describe(kind)} "
        f"with keys {show_all(fields)}",
        where=where,
    )


def _pop_text(fields: dict[str, Any], where: str) -> TextPart:
    text = unwrap(fields.pop("text", None))
    if not isinstance(text, str):
        raise ConversationError(f"expected a string, found {describe(text)}", where=f"{where}.text")
    return TextPart(plain_text(text, where))


def _pop_source(fields: dict[str, Any], kind: MediaKind, where: str, lists: MediaLists) -> Any:
    given = [key for key in _SOURCE_KEYS[kind] if key in fields]
    if not given:
        return plain_source(lists.take(kind, where), where)
    if set(given) == {"bytes", "path"}:  # one media item, as Hugging Face datasets store it
        return plain_source({key: fields.pop(key) for key in given}, where)
    if len(given) > 1:
        raise ConversationError(f"names more than one {kind}: {given}; keep one", where=where)
    key = given[0]
    source = plain_source(fields.pop(key), where)
    if key.endswith("_url") and isinstance(source, Mapping):  # as the OpenAI API spells it
        source = source.get("url")
    if key == "base64" and isinstance(source, str) and not source.startswith("data:"):
        source = f"data:;base64,{source}"
    return source


def _with_rate(source: Any, kind: MediaKind, fields: dict[str, Any]) -> Any:
    """The source with the rate of the part, which belongs to decoded media."""
    for of, named, under in (("video", "fps", "video"), ("audio", "sampling_rate", "array")):
        if kind == of and named in fields:
            given = [key for key in (named, "channel_axis") if key in fields]
            return {under: source, **{key: unwrap(fields.pop(key)) for key in given}}
    return source
