"""One sample's decoded media on its way to a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vlmcollate.conversation import MediaKind
from vlmcollate.media.joins import Join
from vlmcollate.media.processing.resizing import item_arguments


@attrs.frozen(kw_only=True, eq=False)
class MediaRequest:
    """One sample's decoded media, and what is needed to process it.

    Attributes:
        processor: A `transformers` processor.
        kinds: The kind of each item, in the order of the prompt.
        items: RGB images, `Video` values and (N,) float32 audio, in the same order.
        texts: The placeholder that the chat template writes for each item.
        joins: The joining rule of each media key.
    """

    processor: Any
    kinds: Sequence[MediaKind]
    items: Sequence[Any]
    texts: Sequence[str]
    joins: Mapping[str, Join]

    @property
    def item_arguments(self) -> list[dict[str, Any]]:
        """The arguments of the processor that each item needs, or an empty list if none does."""
        found = [item_arguments(item) for item in self.items]
        return found if any(found) else []
