"""Kimi K2.5, with the processor of its remote code."""

from __future__ import annotations

from vlmcollate.collator import BaseCollator
from vlmcollate.family import Family, Packable
from vlmcollate.media import Concatenate, MediaRequest, ProcessedMedia
from vlmcollate.packing.token_mixing import TokenMixing

_PLACEHOLDER = "<|media_pad|>"


def _process(request: MediaRequest) -> ProcessedMedia:
    """Expands each placeholder to the tokens of its image."""
    output = request.processor(
        text=_PLACEHOLDER * len(request.items),
        medias=[{"type": "image", "image": image} for image in request.items],
        return_tensors="pt",
    )
    counts = (output["grid_thws"][:, 1] // 2) * (output["grid_thws"][:, 2] // 2)
    return ProcessedMedia(
        replacements=tuple(_PLACEHOLDER * n for n in counts.tolist()),
        tensors={key: output[key] for key in request.joins},
    )


class KimiK25Collator(BaseCollator):
    """Collates for Kimi K2.5 with the processor of its remote code: text and images.

    That processor takes `medias` and leaves one placeholder per image for the model to expand. Here
    the placeholders are expanded, for any number of images, so that the length does not change
    inside the model.

    Media keys: `pixel_values` (patches, 3, height, width), `grid_thws` (images, 3).

    Source:
        The remote code of moonshotai/Kimi-K2.5, `KimiK25Processor`.
    """

    family = Family(
        joins={
            "pixel_values": Concatenate(rows="grid_thws"),
            "grid_thws": Concatenate(rows="image"),
        },
        stop_tokens=("<|im_end|>",),
        exact_token_counts=frozenset({"image"}),
        packing=Packable(
            token_mixing=TokenMixing(
                model="Kimi K2.5",
                separates_by=frozenset({"lengths"}),
                why="the masks that its remote code takes are unknown",
            )
        ),
        placeholders={"image": _PLACEHOLDER},  # the remote code does not name it
        process=_process,
    )
