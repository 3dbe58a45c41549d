"""Microbatches joined again are the batch, for every layout of media."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2_5_VLConfig

from tests.conversations import given_for_family
from tests.media_bytes import video_bytes
from tests.processors import processor_of
from tests.processors.families import FAMILIES
from vlmcollate import (
    BaseCollator,
    BlockCausalMask,
    ConfigError,
    FlexBlockMask,
    RobustCollator,
    collator_for,
)
from vlmcollate.extend import Concatenate
from vlmcollate.packing import split_microbatches
from vlmcollate.testing import tiny_processor

NAMES = [
    *FAMILIES,
    "kimi_k25",
    "kimi_k25_remote_stand_in",
    "gemma4",
    "mllama",
    "phi4_multimodal",
    "nemotron_omni",
    "llava",
    "glm4v",
    "lfm2_vl",  # by the default collator, which probes it
]
OPTIONS: dict[str, Any] = {
    "glm4v": {"template_kwargs": {"enable_thinking": False}},
    "llava": {"stop_tokens": ["</s>"]},
}


@lru_cache(maxsize=2)  # each holds a tokenizer of a hundred megabytes
def built(name: str) -> Any:
    processor = processor_of(name)
    return collator_for(processor, on_template_omission="allow", **OPTIONS.get(name, {}))


def chat(images: int) -> list[dict[str, Any]]:
    parts: list[Any] = [
        {"type": "image", "image": Image.new("RGB", (56 + 28 * i, 56), "teal")}
        for i in range(images)
    ]
    parts.append({"type": "text", "text": "What?" * (1 + images)})
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": "That."}]


@pytest.mark.parametrize("name", NAMES)
@given_for_family(images=st.lists(st.integers(0, 3), min_size=1, max_size=5), data=st.data())
def test_parts_are_the_batches_of_their_rows(name: str, images: list[int], data: Any) -> None:
    collator = built(name)
    batch = collator([chat(n) for n in images])
    n = data.draw(st.integers(1, len(images)))
    parts = split_microbatches(batch, n, items=collator.family.joins)
    assert max(len(p["input_ids"]) for p in parts) - min(len(p["input_ids"]) for p in parts) <= 1
    for key, value in batch.items():
        assert torch.equal(torch.cat([part[key] for part in parts if key in part]), value)
    start = 0
    for part in parts:
        rows = images[start : start + len(part["input_ids"])]
        start += len(rows)
        same_media(part, collator([chat(n) for n in rows]), collator)


def same_media(part: dict[str, Any], alone: dict[str, Any], collator: BaseCollator) -> None:
    """The media of a part are those of its rows, but for what a whole batch pads."""
    for key in collator.family.joins:
        if key in alone:
            within = part[key][tuple(slice(size) for size in alone[key].shape)]
            assert len(part[key]) == len(alone[key])
            assert torch.equal(within, alone[key]), key
        else:
            # a row that every sample has is padding in a sample without such media
            assert key not in part or collator.family.joins[key].rows == "sample"


@pytest.mark.parametrize("name", ["qwen3_omni", "gemma4", "qwen2_5_vl", "smolvlm"])
def test_videos_and_sounds_go_with_their_rows(name: str) -> None:
    collator = collator_for(processor_of(name))
    movie = {"type": "video", "video": video_bytes([i / 10 for i in range(20)], size=(64, 48))}
    chats = [chat(1), chat(0), chat(0), chat(2), chat(0)]
    for number in (1, 2, 2):
        chats[number][0]["content"].insert(0, movie)
    if "audio" in collator.traits.placeholders:
        for number in (1, 3, 4):
            sound = {"type": "audio", "audio": (np.zeros(4000 * number, np.float32), 16000)}
            chats[number][0]["content"].insert(0, sound)
    batch = collator(chats)
    if name == "gemma4" and "num_frames_per_video" not in batch:
        pytest.skip("this transformers does not say how many frames a video has")
    parts = split_microbatches(batch, 3, items=collator.family.joins)
    for part, rows in zip(parts, (chats[:2], chats[2:4], chats[4:]), strict=True):
        same_media(part, collator(rows), collator)


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
        split_microbatches(batch, 2)
    with pytest.raises(ConfigError, match=r"the rows of 'pixel_values' .* its join has rows=None"):
        split_microbatches(batch, 2, items={"pixel_values": Concatenate()})
    with pytest.raises(ConfigError, match=r"the rows of 'pixel_values' .* are not declared"):
        split_microbatches(batch, 2, items={"image_grid_thw": Concatenate()})
    with pytest.raises(ConfigError, match="expected 1 by the counts"):
        split_microbatches(batch, 2, items={"pixel_values": "image"})
    with pytest.raises(ConfigError, match="expected 0 by the counts"):
        split_microbatches(batch, 2, items={"pixel_values": "video"})
    with pytest.raises(ConfigError, match="not another media key"):
        split_microbatches(batch, 2, items={"pixel_values": "pixel_values"})
    with pytest.raises(ConfigError, match="n must be"):
        split_microbatches(batch, 3, items={"pixel_values": "image"})


def test_masks_of_packs_go_with_their_rows() -> None:
    chats = [chat(0), chat(1), chat(0)]
    text = {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}
    config = Qwen2_5_VLConfig(text_config={**text, "use_sliding_window": True, "sliding_window": 8})
    layered = attrs.evolve(
        built("qwen2_5_vl"), padding=BlockCausalMask(sliding_window=8), model_config=config
    )
    batch = layered(chats)
    masks = [p["attention_mask"] for p in split_microbatches(batch, 2, items=layered.family.joins)]
    for name, whole in batch["attention_mask"].items():
        assert torch.equal(torch.cat([mask[name] for mask in masks]), whole)
    flex = attrs.evolve(layered, padding=FlexBlockMask(sliding_window=8))
    with pytest.raises(ConfigError, match="attention_mask is BlockMask, which cannot be split"):
        split_microbatches(flex(chats), 2, items=flex.family.joins)


def test_a_robust_collators_batch_can_be_cut():
    collator = collator_for(tiny_processor())
    good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    batch = RobustCollator(collator=collator)([good, good])
    parts = split_microbatches(batch, np.int64(2), items=collator.family.joins)  # type: ignore[arg-type]
    assert [part["n_failed_samples"].item() for part in parts] == [0, 0]
    assert [len(part["input_ids"]) for part in parts] == [1, 1]
