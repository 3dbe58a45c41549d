"""Kimi-VL, whose processor is remote code."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.media import Concatenate
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.prompt.chat import Rendering


@attrs.frozen(kw_only=True, eq=False)
class KimiVLCollator(BaseCollator):
    """Collates for Kimi-VL: text and images.

    Media keys: `pixel_values` (patches, 3, height, width), `image_grid_hws` (images, 2).

    Source:
        The remote code of moonshotai/Kimi-VL-A3B-Instruct, `KimiVLProcessor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="image_grid_hws"),
        "image_grid_hws": Concatenate(rows="image"),
    }
    default_stop_tokens = ("<|im_end|>",)
    token_mixing = TokenMixing(
        model="Kimi-VL",
        separates_by=frozenset({"lengths"}),
        why="what masks its remote code takes is not known",
    )

    @cached_property
    def placeholders(self) -> dict[MediaKind, str]:
        """That of images; the model takes no videos, whatever parts its processor has."""
        return {"image": self.processor.image_token}

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        images = self.processor.image_processor
        output = images(images=list(media), return_tensors="pt")
        rows, columns = images.merge_kernel_size
        counts = output["image_grid_hws"].prod(-1) // (rows * columns)
        return ProcessedMedia(
            replacements=tuple(self.placeholders["image"] * n for n in counts.tolist()),
            tensors=dict(output),
        )
