"""The columns of media beside the messages, such as `images`, and where their items belong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import attrs
import numpy as np
import torch
from PIL import Image

from vlmcollate.conversation import MediaKind, MediaPart, Message, Part, TextPart
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import Fields, as_list, is_filler, parsed
from vlmcollate.formats.media_options import media_part
from vlmcollate.plain_values import plain_source, unwrap

COLUMNS: Mapping[MediaKind, tuple[str, ...]] = {
    "image": (
        *("images", "image", "imgs", "img", "pictures", "picture"),
        *("image_paths", "image_path", "image_urls", "image_url", "image_files", "image_file"),
    ),
    "video": (
        *("videos", "video", "video_paths", "video_path", "video_urls", "video_url"),
        *("video_files", "video_file"),
    ),
    "audio": (
        *("audios", "audio", "sounds", "sound", "audio_paths", "audio_path"),
        *("audio_urls", "audio_url", "audio_files", "audio_file"),
    ),
}
"""The names of the columns of each kind of media."""
ALL_COLUMNS = tuple(key for keys in COLUMNS.values() for key in keys)
"""The names of all columns of media."""
PLAIN_TEXT = "text"
"""The role of a plain text, which is no chat."""
TAG = re.compile("<(image|video|audio)>")
_STACKED_AXES: dict[MediaKind, int] = {"image": 4, "video": 5, "audio": 2}
"""The number of axes of an array that holds several media items of one size."""


@attrs.define
class MediaColumns:
    """The media of an example beside its messages, which fills empty parts in order.

    Attributes:
        keys: The column of each kind that the example has.
        sources: The items of each kind, in order.
    """

    keys: dict[MediaKind, str]
    sources: dict[MediaKind, list[Any]]
    _used: dict[MediaKind, int] = attrs.field(factory=dict)

    @classmethod
    def read(cls, fields: Fields) -> MediaColumns:
        """Reads the columns of an example.

        Raises:
            ConversationError: Two columns hold media of one kind.
        """
        keys: dict[MediaKind, str] = {}
        sources: dict[MediaKind, list[Any]] = {}
        for kind in get_args(MediaKind):
            key = _column(fields, kind)
            if key is not None:
                keys[kind] = key
                items = _items(fields.pop_raw(key), key, kind)
                sources[kind] = [item for item in items if not is_filler(item)]
        return cls(keys, sources)

    def take(self, kind: MediaKind, where: str, *, index: Any = None) -> Any:
        """Takes the next media item of a kind.

        Args:
            kind: The kind of the part.
            where: The path of the part, for errors.
            index: The number that the part gives its item, if any.

        Raises:
            ConversationError: There is no column, no item is left, or the next one has another
                number.
        """
        if kind not in self.keys:
            raise ConversationError(
                f"this {kind} part names no {kind}; put one under {kind!r}, or a list of "
                f"them under '{kind}s' in the example",
                where=where,
            )
        sources, used = self.sources[kind], self._used.get(kind, 0)
        if used >= len(sources):
            raise ConversationError(
                f"no {kind} is left for this part: {self.keys[kind]!r} holds {len(sources)}; add "
                "one, or remove the part",
                where=where,
            )
        if isinstance(index, int) and index != used:
            raise ConversationError(
                f"has the index {index}, but parts are filled in order, and item {used} is next; "
                "order the column as the parts, or put each item into its part",
                where=where,
            )
        self._used[kind] = used + 1
        return sources[used]

    def place(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Puts the items that fill no part where a tag is, or before the first user text.

        Args:
            messages: The messages, whose empty parts are filled.

        Returns:
            The messages with all media.

        Raises:
            ConversationError: There are more items than parts, or another number than tags.
        """
        placed = list(messages)
        held = {part.kind for m in messages for part in m.content if isinstance(part, MediaPart)}
        first: list[Part] = []
        for kind, items in self.sources.items():
            if kind in held or self._used.get(kind):
                self._check_used_up(kind)
                continue
            tags = sum(_count(part, kind) for m in placed for part in m.content)
            if tags and tags != len(items):
                raise ConversationError(
                    f"holds {len(items)} {kind} item(s), but the text has {tags} <{kind}> tag(s); "
                    "make the numbers equal",
                    where=self.keys[kind],
                )
            parts = [
                media_part(kind, plain_source(item, where), where)
                for item, where in zip(items, self._places(kind), strict=True)
            ]
            if tags:
                rest = iter(parts)
                placed = [_with_tags_replaced(message, kind, rest) for message in placed]
            else:
                first += parts
        return tuple(_before_the_first_user_text(placed, first) if first else placed)

    def _places(self, kind: MediaKind) -> list[str]:
        return [f"{self.keys[kind]}[{i}]" for i in range(len(self.sources[kind]))]

    def _check_used_up(self, kind: MediaKind) -> None:
        held, used = len(self.sources[kind]), self._used.get(kind, 0)
        if held != used:
            raise ConversationError(
                f"{held} given, but the messages hold {used} empty {kind} part(s) to fill; add "
                f'{{"type": "{kind}"}} parts to the content where they belong',
                where=self.keys[kind],
            )


def _column(fields: Fields, kind: MediaKind) -> str | None:
    """The column of a kind of media; paths beside decoded media are its names."""
    given = fields.named(*COLUMNS[kind])
    full = [key for key in given if not _is_empty(fields[key])] or given[:1]
    for key in given:
        if key not in full:
            fields.pop(key)
    given = full
    decoded = [key for key in given if not _is_text(fields[key])]
    if len(given) > 1 and len(decoded) == 1 and len({_number(fields[key]) for key in given}) == 1:
        for key in given:
            if key != decoded[0]:
                fields.pop(key)
        return decoded[0]
    if len(given) > 1:
        raise ConversationError(
            f"holds {kind} items under {' and '.join(map(repr, given))}; keep one", where=given[1]
        )
    return given[0] if given else None


def _is_empty(value: Any) -> bool:
    """Returns whether a column holds nothing but fillers."""
    if is_filler(value):
        return True
    is_list = isinstance(value, list | tuple) or str(getattr(value, "dtype", "")) == "object"
    return is_list and all(map(is_filler, unwrap(value)))


def _number(value: Any) -> int:
    value = unwrap(value)
    return len(value) if isinstance(value, list | tuple) else 1


def _is_text(value: Any) -> bool:
    value = unwrap(value)
    if isinstance(value, list | tuple):
        return all(isinstance(unwrap(item), str) for item in value)
    return isinstance(value, str)


def _items(value: Any, key: str, kind: MediaKind) -> list[Any]:
    """The media items of a column, which holds one or a list."""
    is_array = isinstance(value, np.ndarray) and value.dtype.kind != "O"
    if is_array or isinstance(value, torch.Tensor):
        if value.ndim >= _STACKED_AXES[kind]:
            return list(value)  # datasets with a format stack media of one size
        if key == f"{kind}s":
            raise ConversationError(
                f"expected a list, found one array of shape {tuple(value.shape)}; put it in a list",
                where=key,
            )
        return [value]
    found = parsed(unwrap(value), key, "[")
    if isinstance(found, list | tuple):
        is_pair = isinstance(found, tuple) and kind == "audio" and len(found) == 2
        is_video = kind == "video" and not key.endswith("s") and _are_frames(found)
        return [found] if is_pair or is_video else list(found)
    if isinstance(found, str | bytes | bytearray | Mapping) or not _is_scalar(found):
        return [found]
    return as_list(found, key)


def _are_frames(items: Sequence[Any]) -> bool:
    """Returns whether the items of a column for one video are its frames."""
    return bool(items) and all(map(_is_frame, items))


def _is_frame(item: Any) -> bool:
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.ndim in (2, 3)
    item = unwrap(item)
    if isinstance(item, Mapping):
        return any(_is_frame(item.get(key)) for key in ("bytes", "path", "image"))
    if isinstance(item, bytes):
        return item.startswith(_IMAGE_MAGIC)
    if isinstance(item, str | Path):
        return Path(str(item).partition("?")[0]).suffix.lower() in _IMAGE_SUFFIXES
    return isinstance(item, Image.Image)


_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _count(part: Part, kind: MediaKind) -> int:
    return part.text.count(f"<{kind}>") if isinstance(part, TextPart) else 0


def _with_tags_replaced(message: Message, kind: MediaKind, items: Any) -> Message:
    """The message with a media item for each tag of a kind."""
    if not any(_count(part, kind) for part in message.content):
        return message
    content: list[Part] = []
    for part in message.content:
        if not isinstance(part, TextPart):
            content.append(part)
            continue
        for i, text in enumerate(part.text.split(f"<{kind}>")):
            content += [next(items)] if i else []
            content += [attrs.evolve(part, text=text)] if text else []
    return attrs.evolve(message, content=tuple(content), is_string=False)


def _before_the_first_user_text(messages: list[Message], parts: list[Part]) -> list[Message]:
    first = ("user", PLAIN_TEXT)
    at = next((i for i, message in enumerate(messages) if message.role in first), None)
    if at is None:
        raise ConversationError(
            "the example holds media, but no user message to which it belongs; add empty media "
            "parts to the content where it belongs",
            where="messages",
        )
    shown = attrs.evolve(messages[at], content=(*parts, *messages[at].content), is_string=False)
    return [*messages[:at], shown, *messages[at + 1 :]]
