"""Families with video, audio or another layout: labels, and the processor's own batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conversations import conversations, given_for_family
from tests.decoding import normal, trained_texts
from tests.media_bytes import video_bytes
from tests.pickling import pickled_copy
from tests.processors import processor_of
from vlmcollate import IGNORE_INDEX, collator_for
from vlmcollate.errors import MediaError

TONE = (np.sin(np.arange(24000) / 20) * 0.3).astype(np.float32)
MOVIE = video_bytes(np.arange(20) / 10, audio=True)
STOPS = {
    "qwen2_5_omni": "<|im_end|>",
    "qwen3_omni": "<|im_end|>",
    "gemma3n": "<end_of_turn>",
    "gemma4": "<turn|>",
    "kimi_k25": "<|im_end|>",
    "phi4_multimodal": "<|end|>",
    "mllama": "<|eot_id|>",
    "nemotron_omni": "<|im_end|>",
}
KINDS = {
    "qwen2_5_omni": ("image", "video", "audio"),
    "qwen3_omni": ("image", "video", "audio"),
    "gemma3n": ("image", "audio"),
    "gemma4": ("image", "video", "audio"),
    "kimi_k25": ("image", "video"),
    "phi4_multimodal": ("image", "audio"),
    "mllama": ("image",),
    "nemotron_omni": ("image", "video", "audio"),
    "qwen2_5_vl": ("image", "video"),
    "qwen3_vl": ("image", "video"),
}
PARTS: dict[str, Any] = {
    "image": {"type": "image", "image": Image.new("RGB", (64, 48), "teal")},
    "video": {"type": "video", "video": MOVIE},
    "audio": {"type": "audio", "audio": (TONE, 24000)},
}


def chat(*kinds, answer="A cat on a mat."):
    media = [PARTS[kind] for kind in kinds]
    return [
        {"role": "user", "content": [*media, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]


@pytest.mark.parametrize("name", STOPS)
@given_for_family(messages=conversations(max_turns=3, max_images=1))
def test_exactly_the_answers_train(name, messages):
    processor = processor_of(name)
    sample = collator_for(processor).encode(messages)
    found = trained_texts(processor.tokenizer, sample.input_ids, sample.labels)
    answers = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    expected = [(a.strip() if name == "gemma4" else a) + STOPS[name] for a in answers]
    assert list(map(normal, found)) == list(map(normal, expected))


@pytest.mark.parametrize("name", KINDS)
def test_rows_media_and_counts(name):
    """Each kind alone, all together, none: rows as if alone, media in order, counts right."""
    kinds = KINDS[name]
    chats = [*(chat(kind) for kind in kinds), chat(*kinds), chat(), chat(kinds[0], *kinds)]
    collator = collator_for(processor_of(name))

    batch = collator(chats)
    again = pickled_copy(collator)(chats)

    for key, value in batch.items():
        assert torch.equal(value, again[key]), key
    for row, messages in enumerate(chats):
        alone = collator.encode(messages)
        assert torch.equal(batch["input_ids"][row][: len(alone)], alone.input_ids)
        assert torch.equal(batch["labels"][row][: len(alone)], alone.labels)
        assert (batch["labels"][row][len(alone) :] == IGNORE_INDEX).all()
        assert (alone.labels[alone.media_ids >= 0] == IGNORE_INDEX).all()
        of = [part["type"] for part in messages[0]["content"]]
        for kind in kinds:
            assert batch[f"n_{kind}s_per_sample"][row] == of.count(kind)


@pytest.mark.parametrize("name", [n for n in KINDS if n not in ("nemotron_omni",)])
def test_equals_the_processors_own_batch(name):
    """For images and sounds; videos are sampled by us, so they are compared in their own test."""
    processor = processor_of(name)
    kinds = [kind for kind in KINDS[name] if kind != "video"]
    chats = [chat(*kinds), chat(*kinds, answer="Two.")]
    texts = [processor.apply_chat_template(messages) for messages in chats]
    sound = np.resize(collator_for(processor).media.load_audio((TONE, 24000), **_at16k()), 16000)
    arguments: dict[str, Any] = {"images": [[PARTS["image"]["image"]]] * 2}
    if "audio" in kinds:
        arguments["audio"] = [sound] * 2
        for messages in chats:
            messages[0]["content"][1] = {"type": "audio", "audio": (sound, 16000)}

    theirs = processor(
        text=texts,
        padding=True,
        padding_side="right",
        add_special_tokens=False,
        return_tensors="pt",
        **arguments,
    )
    ours = collator_for(processor)(chats)

    counts = {f"n_{kind}s_per_sample" for kind in kinds}
    assert set(ours) - set(theirs) == {"labels", *counts}
    for key, value in theirs.items():
        found = ours[key]
        value = value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
        assert found.dtype == value.dtype, key
        if key == "cross_attention_mask":  # theirs lets padding look at the last image
            real = theirs["attention_mask"].bool()
            found, value = found[real], value[real]
        assert torch.equal(found, value), key


def _at16k():
    return {"sampling_rate": 16000, "where": "audio"}


@pytest.mark.parametrize("name", [n for n in KINDS if "video" in KINDS[n]])
def test_a_video_equals_the_processors_own(name):
    processor = processor_of(name)
    collator = collator_for(processor)
    video = collator.media.load_video(MOVIE, sampling=collator.traits.frame_sampling, where="video")
    text = processor.apply_chat_template(chat("video"))
    metadata = [video.metadata()] if name != "nemotron_omni" else video.metadata()
    theirs = processor(
        text=[text],
        videos=[video.frames],
        videos_kwargs={"video_metadata": metadata, "do_sample_frames": False},
        add_special_tokens=False,
        return_tensors="pt",
    )

    ours = collator([chat("video")])

    for key, value in theirs.items():
        if key == "video_second_per_grid":  # the rate of this very video, which is not the default
            assert ours[key].item() == pytest.approx(2 * video.duration / len(video.frames))
        else:
            assert torch.equal(ours[key], torch.as_tensor(value)), key


@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen3_omni"])
def test_a_videos_own_sound_stands_between_its_frames(name):
    processor = processor_of(name)
    silent = collator_for(processor).encode(chat("video"))
    heard = collator_for(processor, use_audio_in_video=True)([chat("video"), chat("audio")])

    assert heard["n_audios_per_sample"].tolist() == [1, 1]
    assert len(heard["input_features"]) == 2
    ids = heard["input_ids"][0].tolist()
    tokens = [processor.video_token, processor.audio_token]
    video, audio = map(processor.tokenizer.convert_tokens_to_ids, tokens)
    assert ids.count(video) == silent.input_ids.tolist().count(video)
    first, last = ids.index(audio), len(ids) - 1 - ids[::-1].index(audio)
    assert ids.count(audio) >= 20 and first < last
    assert (heard["labels"][0, : last + 1] == IGNORE_INDEX).all()


@pytest.mark.parametrize("first", [1, 2, 3])
def test_mllama_sees_its_images_as_the_processor_says(first):
    processor = processor_of("mllama")
    messages = chat(*["image"] * first)
    messages += chat("image", answer="Done.")
    text = processor.apply_chat_template(messages)
    images = [[PARTS["image"]["image"]] * (first + 1)]
    theirs = processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
    ours = collator_for(processor)([messages])
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    for key in ("cross_attention_mask", "aspect_ratio_ids", "aspect_ratio_mask", "pixel_values"):
        assert torch.equal(ours[key], torch.as_tensor(theirs[key])), key


def test_paligemma_equals_the_processors_own_suffix():
    processor = processor_of("paligemma")
    image = PARTS["image"]["image"]
    chats = [
        [
            {"role": "user", "content": [PARTS["image"], {"type": "text", "text": prompt}]},
            {"role": "assistant", "content": answer},
        ]
        for prompt, answer in (("caption en", "A cat."), ("detect cat", "<loc0012><loc0100> cat"))
    ]
    batch = collator_for(processor)(chats)
    for row, (prompt, answer) in enumerate(
        (("caption en", "A cat."), ("detect cat", "<loc0012><loc0100> cat"))
    ):
        theirs = processor(
            text=["<image>" + prompt], images=[[image]], suffix=[answer], return_tensors="pt"
        )
        real = batch["attention_mask"][row].bool()
        for key in ("input_ids", "labels", "token_type_ids"):
            assert torch.equal(batch[key][row][real], theirs[key][0]), key
        assert torch.equal(batch["pixel_values"][row], theirs["pixel_values"][0])


def test_smolvlm_takes_images_or_a_video_but_not_both():
    collator = collator_for(processor_of("smolvlm"))
    batch = collator([chat("video"), chat()])
    assert batch["n_videos_per_sample"].tolist() == [1, 0]
    assert len(batch["pixel_values"]) == 1
    with pytest.raises(MediaError, match="keeps only one kind"):
        collator.encode(chat("image", "video"))
