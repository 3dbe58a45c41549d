"""Kimi K2.5, as its remote code has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import MediaKind
from vlmcollate.media import Concatenate
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.packing.token_mixing import TokenMixing
from vlmcollate.prompt.chat import Rendering


@attrs.frozen(kw_only=True, eq=False)
class KimiK25Collator(BaseCollator):
    """Collates for Kimi K2.5 with the processor of its remote code: text and images.

    That processor takes `medias` and leaves one placeholder an image, for the model to expand. Here
    the placeholders are expanded, for any number of images, so that the length does not change
    inside the model.

    Media keys: `pixel_values` (patches, 3, height, width), `grid_thws` (images, 3).

    Source:
        The remote code of moonshotai/Kimi-K2.5, `KimiK25Processor`.
    """

    media_joins = {
        "pixel_values": Concatenate(rows="grid_thws"),
        "grid_thws": Concatenate(rows="image"),
    }
    exact_token_counts = ("image",)
    default_stop_tokens = ("<|im_end|>",)
    token_mixing = TokenMixing(
        model="Kimi K2.5",
        separates_by=frozenset({"lengths"}),
        why="what masks its remote code takes is not known",
    )
    merge_kernel_size: ClassVar[tuple[int, int]] = (2, 2)

    @property
    def placeholders(self) -> dict[MediaKind, str]:
        """The remote code does not name it."""
        return {"image": "<|media_pad|>"}

    @property
    def media_tokens(self) -> dict[MediaKind, tuple[str, ...]]:
        """See `BaseCollator`."""
        return {kind: (token,) for kind, token in self.placeholders.items()}

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        """See `BaseCollator`."""
        placeholder = self.placeholders["image"]
        output = self.processor(
            text=placeholder * len(media),
            medias=[{"type": "image", "image": image} for image in media],
            return_tensors="pt",
        )
        rows, columns = self.merge_kernel_size
        counts = (output["grid_thws"][:, 1] // rows) * (output["grid_thws"][:, 2] // columns)
        return ProcessedMedia(
            replacements=tuple(placeholder * n for n in counts.tolist()),
            tensors={key: output[key] for key in self.media_joins},
        )
