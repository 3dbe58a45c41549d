"""The lists of media beside the messages, such as `images`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import attrs
import numpy as np
import torch

from vlmcollate.conversation import MediaKind
from vlmcollate.errors import ConversationError
from vlmcollate.formats.fields import as_list

_STACKED_AXES: dict[MediaKind, int] = {"image": 4, "video": 5, "audio": 2}
"""The number of axes of an array that holds several media items of one size."""


@attrs.define
class MediaLists:
    """Fills the empty media parts of an example from its lists, in order.

    Args:
        fields: The fields of the example, of which `images`, `videos` and `audios` are read.
    """

    fields: Mapping[str, Any]
    _used: dict[str, int] = attrs.field(factory=dict)

    def take(self, kind: MediaKind, where: str) -> Any:
        """Takes the next media item of a kind.

        Args:
            kind: The kind of the part.
            where: The path of the part, for errors.

        Returns:
            The source of the media item.

        Raises:
            ConversationError: If there is no list, or no item is left.
        """
        key = f"{kind}s"
        if key not in self.fields:
            raise ConversationError(
                f"this {kind} part names no {kind}; put one under {kind!r}, or a list of "
                f"them under {key!r} in the example",
                where=where,
            )
        sources, used = self._sources(kind), self._used.get(key, 0)
        if used >= len(sources):
            raise ConversationError(
                f"no {kind} is left for this part: {key!r} holds {len(sources)}; add one, or "
                "remove the part",
                where=where,
            )
        self._used[key] = used + 1
        return sources[used]

    def check_used_up(self) -> None:
        """Refuses lists that hold more media than the messages have empty parts.

        Raises:
            ConversationError: If a media item is left.
        """
        for kind in get_args(MediaKind):
            key = f"{kind}s"
            held = len(self._sources(kind)) if key in self.fields else 0
            used = self._used.get(key, 0)
            if held != used:
                raise ConversationError(
                    f"{held} given, but the messages hold {used} empty {kind} part(s) to fill; add "
                    f'{{"type": "{kind}"}} parts to the content where they belong',
                    where=key,
                )

    def _sources(self, kind: MediaKind) -> list[Any]:
        key = f"{kind}s"
        value = self.fields[key]
        is_array = isinstance(value, np.ndarray) and value.dtype.kind != "O"
        if not is_array and not isinstance(value, torch.Tensor):
            return as_list(value, key)
        if value.ndim < _STACKED_AXES[kind]:
            raise ConversationError(
                f"expected a list, found one array of shape {tuple(value.shape)}; put it in a list",
                where=key,
            )
        return list(value)  # datasets with a format stack media of one size
