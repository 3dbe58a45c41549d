"""Processors of remote code, by stand-ins with their signatures: labels, expansion, media."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conversations import conversations, given_for_family
from tests.decoding import normal, trained_texts
from tests.processors import processor_of
from vlmcollate import IGNORE_INDEX, collator_for
from vlmcollate.errors import MediaError

STOPS = {
    "llava_onevision_1_5_stand_in": "<|im_end|>",
    "kimi_vl_stand_in": "<|im_end|>",
    "kimi_k25_remote_stand_in": "<|im_end|>",
    "phi4mm_stand_in": "<|end|>",
}
TONE = (np.sin(np.arange(16000) / 20) * 0.3).astype(np.float32)


def chat(*media, answer="A cat."):
    parts: list[dict[str, Any]] = [
        {"type": "audio", "audio": (TONE[:m], 16000)}
        if isinstance(m, int)
        else {"type": "image", "image": Image.new("RGB", m, "teal")}
        for m in media
    ]
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


@pytest.mark.parametrize("name", STOPS)
@given_for_family(messages=conversations(max_turns=3, max_images=2))
def test_exactly_the_answers_train(name, messages):
    processor = processor_of(name)
    sample = collator_for(processor).encode(messages)
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    answers = [m["content"][0]["text"] + STOPS[name] for m in messages if m["role"] == "assistant"]
    assert list(map(normal, found)) == list(map(normal, answers))


@pytest.mark.parametrize("name", ["kimi_vl_stand_in", "kimi_k25_remote_stand_in"])
def test_kimis_ids_are_those_of_the_processor_that_expands(name):
    """transformers' own Kimi processor expands by itself; its template and images are the same."""
    chats = [chat((64, 48)), chat((40, 90), (120, 60), (30, 30)), chat()]
    ours = collator_for(processor_of(name))(chats)
    theirs = collator_for(processor_of("kimi_k25"))(chats)
    for key in ("input_ids", "labels", "pixel_values", "n_images_per_sample"):
        assert torch.equal(ours[key], theirs[key]), key
    grids = ours["image_grid_hws" if name == "kimi_vl_stand_in" else "grid_thws"]
    assert torch.equal(grids[:, -2:], theirs["image_grid_thw"][:, 1:])


def test_kimis_remote_code_takes_no_video():
    frames = np.zeros((4, 28, 28, 3), np.uint8)
    messages = chat()
    messages[0]["content"].insert(0, {"type": "video", "video": frames})
    with pytest.raises(MediaError, match="takes no video"):
        collator_for(processor_of("kimi_k25_remote_stand_in")).encode(messages)


def test_phi4_expands_and_says_what_the_batch_holds():
    collate = collator_for(processor_of("phi4mm_stand_in"))
    chats = [chat((64, 48)), chat(8000, 16000), chat()]
    batch = collate(chats)
    real = collator_for(processor_of("phi4_multimodal"))(chats)

    assert batch["input_mode"].tolist() == [3]
    assert collate([chats[0], chats[2]])["input_mode"].tolist() == [1]
    assert collate([chats[1]])["input_mode"].tolist() == [2]
    assert collate([chats[2]])["input_mode"].tolist() == [0]
    assert (batch["attention_mask"].sum(1) == real["attention_mask"].sum(1)).all()
    assert ((batch["labels"] == IGNORE_INDEX) == (real["labels"] == IGNORE_INDEX)).all()
    for ours, theirs in (
        ("input_image_embeds", "image_pixel_values"),
        ("image_sizes", "image_sizes"),
        ("audio_embed_sizes", "audio_embed_sizes"),
        ("audio_attention_mask", "audio_attention_mask"),
    ):
        assert torch.equal(batch[ours], real[theirs]), ours
    frames = real["audio_attention_mask"]  # what lies behind a shorter sound is not looked at
    torch.testing.assert_close(
        batch["input_audio_embeds"][frames[:, : batch["input_audio_embeds"].shape[1]]],
        real["audio_input_features"][frames],
    )


def test_kimi_vl_takes_no_videos():
    frames = np.zeros((4, 56, 56, 3), np.uint8)
    chat = [
        {"role": "user", "content": [{"type": "video", "video": frames, "fps": 2.0}]},
        {"role": "assistant", "content": "A cat."},
    ]
    with pytest.raises(MediaError, match="KimiVLCollator takes no video; it takes image"):
        collator_for(processor_of("kimi_vl_stand_in"))([chat])
