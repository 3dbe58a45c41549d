"""Microbatches joined again are the batch, for every layout of media."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.processors import processor_of
from vlmcollate import ConfigError, collator_for
from vlmcollate.packing import split_microbatches

PATCHES = {"pixel_values": "image_grid_thw", "image_grid_thw": "image"}
LAYOUTS = {"qwen2_5_vl": PATCHES, "gemma3": {"pixel_values": "image"}}


def chat(images: int) -> list[dict[str, Any]]:
    parts: list[Any] = [
        {"type": "image", "image": Image.new("RGB", (56 + 28 * i, 56), "teal")}
        for i in range(images)
    ]
    parts.append({"type": "text", "text": "What?" * (1 + images)})
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": "That."}]


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=15)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.data())
def test_parts_are_the_batches_of_their_rows(name: str, images: list[int], data: Any) -> None:
    collator = collator_for(processor_of(name))
    batch = collator([chat(n) for n in images])
    n = data.draw(st.integers(1, len(images)))
    parts = split_microbatches(batch, n, items=LAYOUTS[name])
    assert max(len(p["input_ids"]) for p in parts) - min(len(p["input_ids"]) for p in parts) <= 1
    for key, value in batch.items():
        assert torch.equal(torch.cat([part[key] for part in parts if key in part]), value)
    start = 0
    for part in parts:
        rows = images[start : start + len(part["input_ids"])]
        start += len(rows)
        alone = collator([chat(n) for n in rows])
        for key in LAYOUTS[name]:
            assert (key in part) == (key in alone)
            if key in part:
                assert torch.equal(part[key], alone[key])


def test_per_sample_rows_and_position_axes() -> None:
    batch: dict[str, Any] = {
        "input_ids": torch.zeros(3, 4),
        "position_ids": torch.arange(24).reshape(2, 3, 4),
        "attention_mask": torch.ones(3, 1, 4, 4),
        "sizes": torch.arange(3),
        "qkv_format": "thd",
    }
    first, second = split_microbatches(batch, 2, items={"sizes": "sample"})
    assert first["position_ids"].shape == (2, 2, 4)
    assert second["position_ids"].tolist() == batch["position_ids"][:, 2:].tolist()
    assert first["attention_mask"].shape == (2, 1, 4, 4)
    assert second["sizes"].tolist() == [2]
    assert second["qkv_format"] == "thd"


def test_it_refuses_what_it_does_not_know() -> None:
    batch = {
        "input_ids": torch.zeros(2, 4),
        "pixel_values": torch.zeros(2, 3, 4),
        "n_images_per_sample": torch.tensor([1, 0]),
    }
    with pytest.raises(ConfigError, match="pixel_values"):
        split_microbatches(batch, 2, items={})
    with pytest.raises(ConfigError, match="counts say 1"):
        split_microbatches(batch, 2, items={"pixel_values": "image"})
    with pytest.raises(ConfigError, match="n_videos"):
        split_microbatches(batch, 2, items={"pixel_values": "video"})
    with pytest.raises(ConfigError, match="no other media key"):
        split_microbatches(batch, 2, items={"pixel_values": "pixel_values"})
    with pytest.raises(ConfigError, match="from 1 to"):
        split_microbatches(batch, 3, items={"pixel_values": "image"})
