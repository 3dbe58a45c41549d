"""Collators that are right for what is short, small and still, and wrong beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vlmcollate import EncodedSample, PadToLongest
from vlmcollate.conversation import Conversation
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.padding import PaddingStrategy
from vlmcollate.prompt.encoder import EncodedPrompt, Turn
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True, eq=False)
class LabelsEndAt512(Qwen2_5_VLCollator):
    """Has no labels from token 512 on."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        labels = sample.labels.clone()
        labels[512:] = -100
        return attrs.evolve(sample, tokens={**sample.tokens, "labels": labels})


@attrs.frozen(kw_only=True, eq=False)
class LongAnswersAreCut(Qwen2_5_VLCollator):
    """Trains the first 300 tokens of an answer."""

    def label(self, prompt: EncodedPrompt, conversation: Conversation) -> tuple[str, list[Turn]]:
        name, turns = super().label(prompt, conversation)
        return name, [Turn(t.message, t.start, min(t.end, t.start + 300)) for t in turns]


@attrs.frozen(kw_only=True)
class AtMost256(PadToLongest):
    """Cuts rows where a buffer would end."""

    def __call__(
        self, rows: Sequence[Mapping[str, Tensor]], fill: Mapping[str, float]
    ) -> dict[str, Tensor]:
        batch = super().__call__(rows, fill)
        return {key: value[:, :256].contiguous() for key, value in batch.items()}


@attrs.frozen(kw_only=True, eq=False)
class PadsTo256(Qwen2_5_VLCollator):
    """Cuts batches at 256 tokens."""

    padding: PaddingStrategy = attrs.field(
        factory=AtMost256, validator=an_instance_of(PaddingStrategy)
    )


@attrs.frozen(kw_only=True, eq=False)
class FourthRowUntrained(Qwen2_5_VLCollator):
    """Trains three rows."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Tensor]:  # type: ignore[misc]
        batch = super().stack(samples)
        batch["labels"][3:4] = -100
        return batch


@attrs.frozen(kw_only=True, eq=False)
class SwapsLateImages(Qwen2_5_VLCollator):
    """Loads the pictures from the fourth on in reverse."""

    def load(self, conversation: Conversation) -> list[Any]:
        media = super().load(conversation)
        return [*media[:3], *media[3:][::-1]]


@attrs.frozen(kw_only=True, eq=False)
class SquashesWideImages(Qwen2_5_VLCollator):
    """Makes pictures at most 224 wide, and keeps their height."""

    def load(self, conversation: Conversation) -> list[Any]:
        def squashed(item: Any) -> Any:
            if not isinstance(item, Image.Image) or item.width <= 224:
                return item
            return item.resize((224, item.height))

        return [squashed(item) for item in super().load(conversation)]


@attrs.frozen(kw_only=True, eq=False)
class PadsNarrowImages(Qwen2_5_VLCollator):
    """Loses the rows of narrow pictures."""

    def load(self, conversation: Conversation) -> list[Any]:
        def widened(item: Any) -> Any:
            if not isinstance(item, Image.Image) or item.height < 4 * item.width:
                return item
            return item.resize((item.height // 4, item.height))

        return [widened(item) for item in super().load(conversation)]


@attrs.frozen(kw_only=True, eq=False)
class FilmsRunBackwards(Qwen2_5_VLCollator):
    """Reverses the frames of a video."""

    def load(self, conversation: Conversation) -> list[Any]:
        return [
            attrs.evolve(item, frames=np.ascontiguousarray(item.frames[::-1]))
            if hasattr(item, "frames")
            else item
            for item in super().load(conversation)
        ]


@attrs.frozen(kw_only=True, eq=False)
class VideosAreImages(Qwen2_5_VLCollator):
    """Gives the tokens of a video the type of a picture's."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        types = sample.tokens["mm_token_type_ids"].clamp(max=1)
        return attrs.evolve(sample, tokens={**sample.tokens, "mm_token_type_ids": types})


@attrs.frozen(kw_only=True, eq=False)
class VideosLoseTheirEnd(Qwen2_5_VLCollator):
    """Blackens the last numbers of a video."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        found = super().process_media(rendering, media)
        if "pixel_values_videos" not in found.tensors:
            return found
        pixels = torch.as_tensor(found.tensors["pixel_values_videos"]).clone()
        pixels[-1] = 0
        return attrs.evolve(found, tensors={**found.tensors, "pixel_values_videos": pixels})


CAUGHT_BY: dict[type[Any], str] = {
    LabelsEndAt512: "check_only_answers_train",
    LongAnswersAreCut: "check_only_answers_train",
    PadsTo256: "check_padded_length_is_the_smallest",
    FourthRowUntrained: "check_rows_do_not_depend_on_neighbours",
    SwapsLateImages: "check_media_matches_the_processor",
    SquashesWideImages: "check_media_matches_the_processor",
    PadsNarrowImages: "check_media_matches_the_processor",
    FilmsRunBackwards: "check_media_matches_the_processor",
    VideosLoseTheirEnd: "check_media_matches_the_processor",
    VideosAreImages: "check_token_types_match_the_processor",
}
