"""Collators whose batch or tokens are not those of the processor's own call, each in one way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tests.processors import processor_of
from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation
from vlmcollate.errors import MediaError
from vlmcollate.media import Join, MediaRequest, ProcessedMedia, process_patch_grids
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.models.smolvlm import SmolVLMCollator
from vlmcollate.prompt.encoder import PromptEncoder

FAMILY = Qwen2_5_VLCollator.family


class JoinsInReverse(Join):
    """Joins the last sample first."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        return torch.cat(list(values)[::-1])


class KeepsTheFirst(Join):
    """Keeps the tensor of one sample."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        return values[0]


class JoinsToZeros(Join):
    """Loses the values."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        return torch.zeros_like(torch.cat(list(values)))


def _joining(key: str, join: Join) -> Any:
    return attrs.evolve(FAMILY, joins={**FAMILY.joins, key: join})


class PixelsInReverse(Qwen2_5_VLCollator):
    """Gives each sample the pixels of another, by a join of its own."""

    family = _joining("pixel_values", JoinsInReverse())


class GridsInReverse(Qwen2_5_VLCollator):
    """Gives each sample the grid of another, by a join of its own."""

    family = _joining("image_grid_thw", JoinsInReverse())


class PixelsOfTheFirst(Qwen2_5_VLCollator):
    """Loses all pixels but those of the first sample, by a join of its own."""

    family = _joining("pixel_values", KeepsTheFirst())


class PixelsOfZeros(Qwen2_5_VLCollator):
    """Loses all pixels, by a join of its own."""

    family = _joining("pixel_values", JoinsToZeros())


def _with_newlines(request: MediaRequest) -> ProcessedMedia:
    found = process_patch_grids(request)
    return attrs.evolve(found, replacements=tuple(f"{text}\n" for text in found.replacements))


class WritesNewlines(Qwen2_5_VLCollator):
    """Writes a newline behind each image, which the processor does not."""

    family = attrs.evolve(FAMILY, process=_with_newlines)


def _resizing_again(request: MediaRequest) -> ProcessedMedia:
    plain = [Image.fromarray(np.asarray(image)) for image in request.items]
    return process_patch_grids(attrs.evolve(request, items=plain))


class ResizesAgain(Qwen2_5_VLCollator):
    """Lets the processor resize images that have a size of their own."""

    family = attrs.evolve(FAMILY, process=_resizing_again)


def _doubled(sample: EncodedSample) -> EncodedSample:
    pixels = sample.media["pixel_values"]
    return attrs.evolve(sample, media={**sample.media, "pixel_values": pixels * 2})


class DoublesBytes(Qwen2_5_VLCollator):
    """Changes the pixels of batches that hold bytes."""

    family = attrs.evolve(FAMILY, takes_pixel_bytes=True)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        is_changed = self.pixels == "uint8" and "pixel_values" in sample.media
        return _doubled(sample) if is_changed else sample


class HalvesBytesOfVideos(Qwen2_5_VLCollator):
    """Changes the pixels of videos, but not of images, in every format but float32."""

    family = attrs.evolve(FAMILY, takes_pixel_bytes=True)

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        key = "pixel_values_videos"
        if self.pixels == "float32" or key not in sample.media:
            return sample
        return attrs.evolve(sample, media={**sample.media, key: sample.media[key] // 2})


class HalvesBytesAndTakesNoImage(HalvesBytesOfVideos):
    """The same, for a model that takes videos alone."""

    def load(self, conversation: Conversation) -> list[Any]:
        for _, part in conversation.media:
            if part.kind == "image":
                raise MediaError("this model takes no image", where=part.where)
        return super().load(conversation)


class WritesRowTokens(SmolVLMCollator):
    """Makes the tokens of tiles from text."""

    example_processor = processor_of("smolvlm")

    @property
    def prompt_encoder(self) -> PromptEncoder:
        return attrs.evolve(super().prompt_encoder, expansion_tokens=frozenset)


_JOINED = "check_joined_media_matches_the_processor"
CAUGHT_BY: dict[type[Any], str] = {
    PixelsInReverse: _JOINED,
    GridsInReverse: _JOINED,
    PixelsOfTheFirst: _JOINED,
    PixelsOfZeros: _JOINED,
    DoublesBytes: "check_pixel_formats_agree",
    HalvesBytesOfVideos: "check_pixel_formats_agree",
    HalvesBytesAndTakesNoImage: "check_pixel_formats_agree",
    WritesNewlines: "check_tokens_match_the_processor",
    ResizesAgain: "check_the_options_of_an_image_act",
    WritesRowTokens: "check_text_makes_no_media_tokens",
}
