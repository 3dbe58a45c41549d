"""The content of messages: text, and the spellings of media parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from vlmcollate.conversation import MediaKind, MediaPart, Part, TextPart
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import Fields, as_list, is_filler, parsed
from vlmcollate.formats.media_options import SPELLINGS, media_part
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.weights import pop_weight
from vlmcollate.plain_values import describe, plain, plain_source, plain_text, show_all, unwrap

_SOURCE_KEYS: dict[MediaKind, tuple[str, ...]] = {
    "image": ("image", "image_url", "input_image", "path", "url", "base64", "bytes"),
    "video": ("video", "video_url", "input_video", "path", "url", "base64", "bytes"),
    "audio": ("audio", "audio_url", "input_audio", "path", "url", "base64", "bytes", "array"),
}
_KIND_OF_TYPE: dict[str, MediaKind] = {
    spelling: kind
    for kind in _SOURCE_KEYS
    for spelling in (kind, f"{kind}_url", f"input_{kind}")  # also as a key without a type
}
_TEXT_TYPES = ("text", "input_text", "output_text", "refusal")
_THINKING_TYPES = ("thinking", "reasoning")
_TYPES = frozenset({*_TEXT_TYPES, *_THINKING_TYPES, *_KIND_OF_TYPE})


@attrs.frozen
class Thinking:
    """A part of an assistant message that holds its reasoning."""

    text: str


def result_text(value: object, where: str) -> object:
    """Writes the result of a tool as JSON, unless it is a string or parts."""
    if not _is_json_value(value):
        return value
    return json.dumps(plain(value, where, keep_missing=True), ensure_ascii=False)


def read_content(value: object, where: str, reading: Reading) -> list[Part | Thinking]:
    """Reads the content of a message.

    Args:
        value: A string, a part, or a list of parts, or JSON of such a list.
        where: The path of the content, such as `messages[0].content`.
        reading: What is known of the example.

    Returns:
        The parts in order.

    Raises:
        ConversationError: The content is anything else, or one of its parts is wrong.
    """
    if isinstance(value, str):
        return [TextPart(plain_text(value, where))]
    items = [value] if isinstance(value, Mapping) else as_list(value, where)
    found = [_read_part(item, f"{where}[{i}]", reading) for i, item in enumerate(items)]
    _check_reasoning_is_first(found, where)
    return found


def _is_json_value(value: Any) -> bool:
    """Returns whether a value is no string and no parts, such as the result of a tool."""
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_json_value(unwrap(item)) for item in value)
    if isinstance(value, Mapping):
        is_named = len(value) == 1 and value.keys() <= _TYPES
        kind = unwrap(value.get("type"))
        return not is_named and not (isinstance(kind, str) and kind in _TYPES)
    return isinstance(value, bool | int | float)


def _check_reasoning_is_first(parts: list[Part | Thinking], where: str) -> None:
    """Refuses reasoning behind other content, before which templates would write it."""
    said = False
    for i, part in enumerate(parts):
        if said and isinstance(part, Thinking):
            raise ConversationError(
                "is reasoning behind other content, but chat templates write all reasoning before "
                "the content; put it first, or split the message",
                where=f"{where}[{i}]",
            )
        said = said or not (isinstance(part, Thinking) or getattr(part, "text", None) == "")


def _read_part(value: object, where: str, reading: Reading) -> Part | Thinking:
    value = unwrap(value)
    if isinstance(value, str):
        return TextPart(plain_text(value, where))
    if not isinstance(value, Mapping):
        raise ConversationError(
            f'expected a part such as {{"type": "text", "text": ...}}, found {describe(value)}',
            where=where,
        )
    fields = Fields(value, where)
    kind = _pop_kind(fields, where)
    weight = pop_weight(fields)
    part: Part | Thinking
    if kind in _KIND_OF_TYPE:
        media = _media_part(fields, _KIND_OF_TYPE[kind], where, reading)
        part = attrs.evolve(media, weight=weight) if weight else media
    elif kind in _THINKING_TYPES:
        part = Thinking(_pop_text(fields, ("thinking", "reasoning", "text"), where))
        if weight is not None:
            raise ConversationError(
                "has a weight, but reasoning has that of its message; remove it", where=where
            )
    else:
        part = TextPart(_pop_text(fields, ("text", "refusal"), where), weight)
        if weight is not None and not part.text.strip():
            raise ConversationError(
                "has a weight, but no words; join it with the part before or behind it",
                where=where,
            )
    reading.leave(fields)
    return part


def _pop_kind(fields: Fields, where: str) -> str:
    """The kind of a part by its type or, if it has none, by its only key of that name."""
    kind = fields.pop("type")
    if kind is None:
        named = [
            k
            for k in fields.named("text", *_KIND_OF_TYPE)
            if k == "text" or not is_filler(fields[k])
        ]
        kind = named[0] if len(named) == 1 else None
    if isinstance(kind, str) and kind in _TYPES:
        return kind
    raise ConversationError(
        f"expected a part of type 'text', 'image', 'video' or 'audio', found {describe(kind)} "
        f"with keys {show_all(fields)}",
        where=where,
    )


def _pop_text(fields: Fields, keys: tuple[str, ...], where: str) -> str:
    key = next(iter(fields.named(*keys)), keys[0])
    text = fields.pop(key)
    if not isinstance(text, str):
        raise ConversationError(
            f"expected a string, found {describe(text)}", where=f"{where}.{key}"
        )
    return plain_text(text, where)


def _media_part(fields: Fields, kind: MediaKind, where: str, reading: Reading) -> MediaPart:
    source = _with_rate(_pop_source(fields, kind, where, reading), kind, fields)
    if isinstance(source, Mapping) or not SPELLINGS.isdisjoint(fields):
        return media_part(kind, source, where, fields)
    return MediaPart(kind, source, where)


def _pop_source(fields: Fields, kind: MediaKind, where: str, reading: Reading) -> Any:
    given = fields.named(*_SOURCE_KEYS[kind])
    for key in given:
        if is_filler(fields[key]):
            fields.pop(key)
    given = fields.named(*_SOURCE_KEYS[kind])
    if isinstance(fields.get("source"), Mapping):
        given.append("source")
    if not given:
        return plain_source(reading.columns.take(kind, where, index=fields.get("index")), where)
    if set(given) == {"bytes", "path"}:  # one media item, as Hugging Face datasets store it
        return plain_source({key: fields.pop_raw(key) for key in given}, where)
    if len(given) > 1:
        raise ConversationError(f"names more than one {kind}: {given}; keep one", where=where)
    key = given[0]
    if key == "source":
        return _source_of_block(fields, where)
    source = plain_source(fields.pop_raw(key), where)
    if key.endswith("_url"):  # as the OpenAI API spells it
        source = parsed(source, where, "{")
    is_read_later = key.endswith("_url") and isinstance(source, Mapping) and SPELLINGS & set(source)
    if key in _DICTS and isinstance(source, Mapping) and not is_read_later:
        return _source_of_dict(source, f"{where}.{key}", reading)
    return _encoded(source) if key == "base64" else source


_DICTS = frozenset(f"{kind}_url" for kind in _SOURCE_KEYS) | {f"input_{k}" for k in _SOURCE_KEYS}
"""The keys under which the OpenAI API has a dict."""


def _source_of_dict(value: Mapping[str, Any], where: str, reading: Reading) -> Any:
    """The address or the encoded media in a dict of the OpenAI API."""
    fields = Fields(value, where)
    keys = [key for key in fields.named("url", "data") if not is_filler(fields[key])]
    if len(keys) != 1:
        raise ConversationError(
            f"expected a dict with 'url' or 'data', found one with {show_all(value)}; name one of "
            "them",
            where=where,
        )
    source = fields.pop_raw(keys[0])
    reading.leave(fields)
    return _encoded(source) if keys == ["data"] else source


def _source_of_block(fields: Fields, where: str) -> str:
    """The source of a block of the Anthropic API."""
    source = Fields(fields.pop("source"), f"{where}.source")
    kind, media_type = source.pop("type"), source.pop("media_type") or ""
    key = {"base64": "data", "url": "url"}.get(str(kind), "")
    value = source.pop(key)
    if not isinstance(value, str) or not value or not isinstance(media_type, str) or source.rest:
        raise ConversationError(
            "expected a dict with 'type': 'base64', 'media_type' and 'data', or with 'type': 'url' "
            f"and 'url', found type {kind!r} and {describe(value)}",
            where=source.where,
        )
    return f"data:{media_type};base64,{value}" if key == "data" else value


def _encoded(value: Any) -> Any:
    """A data URI for base64 text."""
    is_bare = isinstance(value, str) and not value.startswith("data:")
    return f"data:;base64,{value}" if is_bare else value


def _with_rate(source: Any, kind: MediaKind, fields: Fields) -> Any:
    """The audio with the rate of the part, which belongs to decoded samples."""
    if kind != "audio" or "sampling_rate" not in fields:
        return source
    given = fields.named("sampling_rate", "channel_axis")
    return {"array": source, **{key: fields.pop(key) for key in given}}
