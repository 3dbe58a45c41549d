"""The options that one media item has of its own, such as `max_pixels` and `fps`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from vlmcollate.conversation import MediaKind, MediaOptions, MediaPart
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import Fields, as_list
from vlmcollate.plain_values import describe, show_all, unwrap

_RATES = (1e-6, 1e6)


def _pixels(value: object, where: str) -> int:
    found = unwrap(value)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not math.isfinite(found) or found < 1 or found != int(found):
        raise ConversationError(
            f"expected a whole number from 1, found {describe(found)}", where=where
        )
    return int(found)


def _number(value: object, where: str, *, least: float = 0.0) -> float:
    found = unwrap(value)
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not math.isfinite(found) or found < least:
        raise ConversationError(
            f"expected a number from {least:g}, found {describe(found)}", where=where
        )
    return float(found)


def _rate(value: object, where: str) -> float:
    found = _number(value, where)
    if not _RATES[0] <= found <= _RATES[1]:
        raise ConversationError(
            f"expected a rate from {_RATES[0]:g} to {_RATES[1]:g} per second, found {found:g}",
            where=where,
        )
    return found


def _flag(value: object, where: str) -> bool:
    found = unwrap(value)
    if not isinstance(found, bool):
        raise ConversationError(f"expected true or false, found {describe(found)}", where=where)
    return found


def _rising(read: Callable[[object, str], Any]) -> Callable[[object, str], tuple[Any, ...]]:
    def read_list(value: object, where: str) -> tuple[Any, ...]:
        found = [read(item, f"{where}[{i}]") for i, item in enumerate(as_list(value, where))]
        if not found or any(a >= b for a, b in zip(found, found[1:], strict=False)):
            raise ConversationError(
                f"expected a list of rising numbers, found {describe(found)}", where=where
            )
        return tuple(found)

    return read_list


def _index(value: object, where: str) -> int:
    return _pixels(unwrap(value), where) if unwrap(value) != 0 else 0


_Options = dict[str, tuple[str, Callable[[object, str], Any]]]
_SIZES: _Options = {
    key: (key, _pixels) for key in ("min_pixels", "max_pixels", "resized_height", "resized_width")
}
_OPTIONS: dict[MediaKind, _Options] = {
    "image": _SIZES,
    "video": {
        **_SIZES,
        "total_pixels": ("total_pixels", _pixels),
        "fps": ("fps", _rate),
        "nframes": ("num_frames", _pixels),
        "num_frames": ("num_frames", _pixels),
        "min_frames": ("min_frames", _pixels),
        "max_frames": ("max_frames", _pixels),
        "video_start": ("start", _number),
        "video_end": ("end", _number),
        "timestamps": ("times", _rising(_number)),
        "frames_indices": ("indices", _rising(_index)),
        "raw_fps": ("raw_fps", _rate),
        "sample_fps": ("sample_fps", _rate),
        "use_audio_in_video": ("use_audio_in_video", _flag),
    },
    "audio": {"audio_start": ("start", _number), "audio_end": ("end", _number)},
}
"""For each kind, the spellings of the options, as the Qwen utilities have them."""
SPELLINGS = frozenset(key for options in _OPTIONS.values() for key in options)
_SOURCES = ("path", "url", "bytes")


def media_part(kind: MediaKind, source: Any, where: str, fields: Fields | None = None) -> MediaPart:
    """Makes a media part with the options that the item has of its own.

    Args:
        kind: The kind of media.
        source: The media; a dict of it and its options is taken apart.
        where: Its path in the example.
        fields: The fields of the part in the messages, from which its options are read.

    Raises:
        ConversationError: An option is wrong, contradicts another one, or is one of another kind.
    """
    given = {} if fields is None else _pop_options(fields, kind)
    if isinstance(source, Mapping) and not SPELLINGS.isdisjoint(source):
        inner = Fields(source, where)
        for name, value in _pop_options(inner, kind).items():
            if given.setdefault(name, value) != value:
                raise ConversationError(
                    f"the part and its {kind} set {name} to {given[name]} and {value}; keep one",
                    where=where,
                )
        source = _source_of(inner, kind)
    elif isinstance(source, Mapping) and set(source) == {kind}:
        source = source[kind]
    if not given:
        return MediaPart(kind, source, where)
    _check_together(given, kind, where)
    return MediaPart(kind, source, where, MediaOptions(**given))


def _source_of(fields: Fields, kind: MediaKind) -> Any:
    """The media in a dict of it and its options."""
    keys = fields.named(kind, *_SOURCES)
    source = fields.pop_raw(keys[0]) if len(keys) == 1 else None
    unread = [key for key in fields if key != "detail"]
    if source is None and set(keys) == {"bytes", "path"} == set(unread):
        return dict(fields.rest)
    if source is None or unread:
        raise ConversationError(
            f"expected one {kind} under {kind!r}, 'path', 'url' or 'bytes', and its options; found "
            f"the keys {show_all(keys + unread)}; remove the others",
            where=fields.where,
        )
    return source


def _pop_options(fields: Fields, kind: MediaKind) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in fields.named(*sorted(SPELLINGS)):
        if key not in _OPTIONS[kind]:
            kinds = [other for other, options in _OPTIONS.items() if key in options]
            raise ConversationError(
                f"is an option of {' and '.join(kinds)} parts, but this one is {kind}; remove it",
                where=fields.path(key),
            )
        name, read = _OPTIONS[kind][key]
        if name in found:
            raise ConversationError("is given twice; keep one", where=fields.path(key))
        found[name] = read(fields.pop_raw(key), fields.path(key))
    return found


_OF_EVEN_SAMPLING = (
    *("fps", "num_frames", "sample_fps", "min_frames", "max_frames", "start", "end"),
)
_EXCLUSIVE = (
    ("fps", "num_frames"),
    ("times", "indices"),
    *((named, other) for named in ("times", "indices") for other in _OF_EVEN_SAMPLING),
    ("total_pixels", "resized_height"),
)
_ORDERED = (
    *(("min_pixels", "max_pixels"), ("min_frames", "max_frames"), ("start", "end")),
    *(("min_frames", "num_frames"), ("num_frames", "max_frames")),
)


def _check_together(given: Mapping[str, Any], kind: MediaKind, where: str) -> None:
    """Refuses options that contradict or lack each other."""
    spelled = {name: key for key, (name, _) in reversed(_OPTIONS[kind].items())}

    def refuse(problem: str) -> None:
        raise ConversationError(problem, where=where)

    if ("resized_height" in given) != ("resized_width" in given):
        refuse("sets one of resized_height and resized_width; set both")
    for one, other in _EXCLUSIVE:
        if one in given and other in given:
            refuse(f"sets both {spelled[one]} and {spelled[other]}; keep one")
    for low, high in _ORDERED:
        if low in given and high in given and given[low] > given[high]:
            refuse(
                f"sets {spelled[low]}={given[low]:g} above {spelled[high]}={given[high]:g}; "
                "correct them"
            )
    if "raw_fps" in given and not {"indices", "sample_fps"} & given.keys():
        refuse("sets raw_fps without frames_indices; set both, or sample_fps for frames")
