"""A change of a processor's settings counts at once, also inside a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tests.processors import build
from vlmcollate import LocalMedia, collator_for
from vlmcollate.extend import Family, ProcessedMedia
from vlmcollate.mixture import MixtureCollator, MixtureRow
from vlmcollate.models.default import DefaultCollator

pytestmark = pytest.mark.skipif(
    not hasattr(hf.ProcessorMixin, "replace_image_token"),
    reason="the calls of this transformers have no such methods",
)

Means = list[list[float]]
"""The means of an image processor that each sample of a batch is to be processed with."""
MEANS: Means = [[0.5, 0.5, 0.5], [0.25, 0.5, 0.5], [0.25, 0.25, 0.5]]


def chat() -> list[dict[str, Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    question = [{"type": "image", "image": Image.fromarray(pixels)}]
    return [
        {"role": "user", "content": [*question, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "This."}]},
    ]


def with_mean(processor: Any, mean: Sequence[float]) -> None:
    processor.image_processor.image_mean = list(mean)


def expected() -> list[torch.Tensor]:
    """The pixels of one sample with each of `MEANS`."""
    processor, image = build("internvl").image_processor, chat()[0]["content"][0]["image"]
    return [
        processor(images=[image], image_mean=mean, return_tensors="pt").pixel_values
        for mean in MEANS
    ]


def test_a_change_between_batches_counts() -> None:
    processor = build("internvl")
    collate = collator_for(processor)
    for mean, pixels in zip(MEANS, expected(), strict=True):
        with_mean(processor, mean)
        assert collate.encode(chat()).pixel_tables
        assert torch.equal(collate([chat(), chat()])["pixel_values"], torch.cat([pixels] * 2))


def changing(processor: Any) -> Callable[[], None]:
    """Returns a function that changes the mean of a processor to the next one of `MEANS`."""
    means = iter(MEANS)
    return lambda: with_mean(processor, next(means, MEANS[-1]))


def with_own_media(processor: Any) -> Any:
    change = changing(processor)

    class ChangingMedia(LocalMedia):
        def load_image(self, source: object, *, where: str) -> Image.Image:
            change()
            return super().load_image(source, where=where)

    return collator_for(processor, media=ChangingMedia())


def with_own_load(processor: Any) -> Any:
    change = changing(processor)

    class Changing(DefaultCollator):
        def load(self, conversation: Any) -> list[Any]:
            change()
            return super().load(conversation)

    return Changing(processor=processor)


def with_own_process_media(processor: Any) -> Any:
    change = changing(processor)

    class Changing(DefaultCollator):
        def process_media(self, rendering: Any, media: Sequence[Any]) -> ProcessedMedia:
            change()
            return super().process_media(rendering, media)

        @property
        def family(self) -> Family:
            return attrs.evolve(super().family, takes_pixel_bytes=True)

    return Changing(processor=processor)


def with_own_postprocess(processor: Any) -> Any:
    change = changing(processor)
    change()

    class Changing(DefaultCollator):
        def postprocess(self, sample: Any) -> Any:
            change()
            return super().postprocess(sample)

        @property
        def family(self) -> Family:
            return attrs.evolve(super().family, takes_pixel_bytes=True)

    return Changing(processor=processor, max_length=4096, on_overlong="truncate")


@pytest.mark.parametrize(
    "make", [with_own_media, with_own_load, with_own_process_media, with_own_postprocess]
)
def test_a_change_by_code_of_others_counts_at_once(make: Callable[[Any], Any]) -> None:
    processor = build("internvl")
    collator_for(processor)([chat()])  # whose probes call no code of others
    collate = make(processor)
    batch = collate([chat() for _ in MEANS])
    assert torch.equal(batch["pixel_values"], torch.cat(expected()))


def test_a_change_by_another_collator_of_a_mixture_counts_at_once() -> None:
    processor = build("internvl")
    collate = collator_for(processor)
    collate([chat()])  # whose probes call no code of others
    with_mean(processor, MEANS[0])

    class ChangingMedia(LocalMedia):
        def load_image(self, source: object, *, where: str) -> Image.Image:
            with_mean(processor, MEANS[1])
            return super().load_image(source, where=where)

    mixture = MixtureCollator(collate, {"a": {"media": ChangingMedia()}, "b": {}})
    rows = [MixtureRow(source=name, index=n, row=chat()) for n, name in enumerate("bab")]
    first, second, _ = expected()
    assert torch.equal(mixture(rows)["pixel_values"], torch.cat([first, second, second]))
