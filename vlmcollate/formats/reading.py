"""What is known while one example is read."""

from __future__ import annotations

from typing import Any

import attrs

from vlmcollate.formats.fields import Fields, is_filler, is_hollow
from vlmcollate.formats.media_columns import MediaColumns
from vlmcollate.formats.trainable import find_trainable, is_media_key
from vlmcollate.formats.unread import METADATA, OBJECTS


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

    def leave(self, fields: Fields) -> None:
        """Records the fields that are left as unread, of known metadata what could train."""
        for key, value in fields.rest.items():
            if key in METADATA:
                self.unread.update(find_trainable(value, fields.path(key)))
            elif not (is_media_key(key) and is_filler(value)) and not (
                key == OBJECTS and is_hollow(value)
            ):
                self.unread[fields.path(key)] = value
