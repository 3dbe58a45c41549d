"""The law that a batch has the same pixels in every format."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import attrs
from hypothesis import strategies as st

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.pixels import PixelFormat, cast_pixels, dtype_of, normalize_pixels
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import equal_tensors, failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.probes import batch_probes, unequal_images
from vlmcollate.testing.laws.subject import Subject


def check_pixel_formats_agree(collator: BaseCollator, trial: Trial) -> None:
    """Images and videos as bfloat16 are those of float32, rounded; as bytes they become them."""
    subject = Subject.of(collator)
    videos = batch_probes(subject, "a video", "an image and a video")
    if not subject.images and not videos:
        raise NotApplicable("it accepts no image and no video")
    plain = attrs.evolve(subject.collator, pixels="float32")
    others = _in_other_formats(plain)

    def check(examples: list[Chat]) -> None:
        expected = plain(examples)
        for name, other in others.items():
            found = normalize_pixels(other(examples))
            keys = [key for key in plain.family.joins if key in found or key in expected]
            differing = [key for key in keys if not _is_same(key, found, expected, name)]
            if differing:
                raise failure(
                    f'{", ".join(differing)} of a batch with pixels="{name}" is not what it is '
                    'with "float32"',
                    "let process_media and postprocess do the same with every option pixels",
                    collator=other,
                    messages=examples[0],
                )

    if not subject.images:
        forall(trial, st.sampled_from(videos), check)
        return
    few = subject.chats(min_images=1, max_turns=min(2, subject.turns))
    forall(trial, batches(few), check, also=[*unequal_images(subject), *videos])


def _in_other_formats(collator: BaseCollator) -> dict[PixelFormat, BaseCollator]:
    others: dict[PixelFormat, BaseCollator] = {}
    others["bfloat16"] = attrs.evolve(collator, pixels="bfloat16")
    with suppress(ConfigError):  # its pixels are floats
        others["uint8"] = attrs.evolve(collator, pixels="uint8")
    return others


def _is_same(
    key: str, found: Mapping[str, Any], expected: Mapping[str, Any], pixels: PixelFormat
) -> bool:
    """Returns whether a media tensor is the expected one in a format."""
    if key not in found or key not in expected:
        return False
    return equal_tensors([found[key]], [cast_pixels(key, expected[key], dtype_of(pixels))])
