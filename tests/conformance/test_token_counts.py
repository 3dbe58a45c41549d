"""Lengths known from sizes are those that encoding gives, for every family that claims to know."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

from tests.media_bytes import video_bytes
from tests.processors.cases import CASES, collator_of, in_turns
from vlmcollate import BaseCollator, LocalMedia
from vlmcollate.encode.media_counts import processors_count_videos


@attrs.frozen(kw_only=True)
class Undecoded(LocalMedia):
    """Media that may only be looked at."""

    def load_image(self, source: object, *, where: str) -> Any:
        raise AssertionError(f"{where} was loaded")

    def load_video(self, source: object, **options: Any) -> Any:
        raise AssertionError(f"{options['where']} was loaded")


@lru_cache(maxsize=2)  # each holds a tokenizer of a hundred megabytes
def known_collator(name: str) -> BaseCollator:
    if CASES[name].build is None:
        pytest.skip("cannot be built here")
    return collator_of(name)


def taking(kind: str) -> list[str]:
    return [n for n, c in CASES.items() if kind in c.kinds and not {kind, ""} & set(c.error)]


def picture(random: np.random.Generator) -> bytes:
    file = io.BytesIO()
    height, width = (int(side) for side in random.integers(30, 700, 2))
    Image.new("RGB", (width, height), "teal").save(file, "JPEG")
    return file.getvalue()


def chat(kind: str, *sources: object) -> list[dict[str, Any]]:
    parts = [{"type": kind, kind: source} for source in sources]
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]},
    ]


def check(collator: BaseCollator, kind: str, sources: list[object]) -> None:
    messages = chat(kind, *sources)
    looking = attrs.evolve(collator, media=Undecoded())
    known = collator.counts_media([kind] * len(sources))  # type: ignore[list-item]  # a kind
    expected = len(collator.encode(messages)) if known else None
    assert looking.token_count(messages) == expected


@pytest.mark.parametrize("name", in_turns(taking("image"), 0))
def test_the_count_of_pictures_is_the_encoded_length_or_unknown(name):
    collator, random = known_collator(name), np.random.default_rng(len(name))
    for number in (1, 1, CASES[name].most.get("image", 2)):
        check(collator, "image", [picture(random) for _ in range(number)])


@pytest.mark.parametrize("name", in_turns(taking("video"), 1))
def test_the_count_of_videos_is_the_encoded_length_or_unknown(name):
    collator, random = known_collator(name), np.random.default_rng(len(name))
    for number in (1, CASES[name].most.get("video", 2)):
        height, width = (28 * int(side) for side in random.integers(3, 9, 2))
        gaps = random.uniform(0.03, 0.6, int(random.integers(5, 30)))
        check(collator, "video", [video_bytes(np.cumsum(gaps), size=(width, height))] * number)


def test_the_core_families_know_their_pictures():
    for name in ("Gemma3", "LlavaNext", "Pixtral", "Qwen2_5_VL", "Qwen3VL", "SmolVLM"):
        assert known_collator(f"{name}Processor").counts_media(["image"])
    counts = known_collator("Qwen3VLProcessor").counts_media(["video"])
    assert counts == processors_count_videos()
