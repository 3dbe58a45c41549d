"""What is known while one example is read."""

from __future__ import annotations

import re
from typing import Any

import attrs

from vlmcollate.formats.fields import Fields, is_filler, is_hollow
from vlmcollate.formats.media_columns import MediaColumns
from vlmcollate.formats.trainable import find_trainable, is_media_key
from vlmcollate.formats.unread import METADATA, OBJECTS
from vlmcollate.plain_values import unwrap


@attrs.define
class Reading:
    """What is known while one example is read.

    Attributes:
        columns: The media beside the messages.
        keep_none_arguments: Whether arguments of tool calls whose value is `None` are kept.
        unread: The fields that are not read, by their path.
        dropped_arguments: The paths of arguments that were dropped, since their value is `None`.
    """

    columns: MediaColumns
    keep_none_arguments: bool = False
    unread: dict[str, Any] = attrs.field(factory=dict)
    dropped_arguments: list[str] = attrs.field(factory=list)

    def leave(self, fields: Fields, *, has_media: bool = True) -> None:
        """Records the fields that are left as unread, of known metadata what could train.

        Args:
            fields: The fields of a row, a message or a part.
            has_media: Whether there is media, so that its names in the metadata are no loss.
        """
        for key, value in fields.rest.items():
            if key in METADATA and not has_media and _names_media(value):
                self.unread[fields.path(key)] = value
            elif key in METADATA:
                self.unread.update(find_trainable(value, fields.path(key)))
            elif not (is_media_key(key) and is_filler(value)) and not (
                key == OBJECTS and is_hollow(value)
            ):
                self.unread[fields.path(key)] = value


_SUFFIX = re.compile(
    r".+\.(jpe?g|png|webp|bmp|gif|tiff?|avif|mp4|mkv|webm|mov|avi|wav|mp3|flac|ogg|m4a)(\?.*)?",
    re.IGNORECASE,
)


def _names_media(value: Any) -> bool:
    """Returns whether a value is the path or the URL of media."""
    value = unwrap(value)
    return isinstance(value, str) and _SUFFIX.fullmatch(value) is not None
