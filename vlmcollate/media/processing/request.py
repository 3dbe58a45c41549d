"""One sample's decoded media on its way to a processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from vlmcollate.conversation import MediaKind
from vlmcollate.media.joins import Join
from vlmcollate.media.processing.resizing import is_resized


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
    def has_resized_items(self) -> bool:
        """Whether an item has a size of its own, which only `process_per_item` lets it keep."""
        return any(map(is_resized, self.items))
