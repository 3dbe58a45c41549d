"""How long videos, sounds and the thinking prefix take beside what they cannot do without.

    python -m benchmarks.media

Needs the test assets. Both sides take turns in one process; each row is the median of the rounds.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table
from transformers import logging

from benchmarks.timing import compare
from tests.media_bytes import video_bytes
from tests.processors import build
from vlmcollate import EncodedSample, FrameSampling, LocalMedia, ThinkingPrefix, collator_for


def chat(kind: str, source: Any) -> list[dict[str, Any]]:
    """A question about one item, and its answer."""
    question = [{"type": kind, kind: source}, {"type": "text", "text": "What happens?"}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": "Nothing."}]


def video_calls() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Four videos of 20 s, 320x240, at two frames a second, on Qwen2.5-VL."""
    processor = build("qwen2_5_vl")
    source = video_bytes(np.arange(200) / 10, size=(320, 240), container="mp4")
    chats = [chat("video", source)] * 4
    texts = [processor.apply_chat_template(messages) for messages in chats]
    media = LocalMedia()

    def bare() -> Any:
        videos = [media.load_video(source, sampling=FrameSampling(), where="") for _ in chats]
        facts = {"video_metadata": [v.metadata() for v in videos], "do_sample_frames": False}
        return processor(
            text=texts,
            videos=[video.frames for video in videos],
            videos_kwargs=facts,
            padding=True,
            return_tensors="pt",
        )

    return bare, partial(collator_for(processor), chats)


def audio_calls() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Four sounds of 10 s at 44.1 kHz, on Qwen3-Omni."""
    processor = build("qwen3_omni")
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 441000)
    soundfile.write(file, noise, 44100, format="WAV")
    chats = [chat("audio", file.getvalue())] * 4
    texts = [processor.apply_chat_template(messages) for messages in chats]
    media = LocalMedia()

    def bare() -> Any:
        sounds = [media.load_audio(file.getvalue(), sampling_rate=16000, where="") for _ in chats]
        return processor(text=texts, audio=sounds, padding=True, return_tensors="pt")

    return bare, partial(collator_for(processor), chats)


def prefix_calls() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Eight samples of 8,192 tokens with sixteen turns each, and a copy of their tensors."""
    tokenizer = build("gemma4").tokenizer
    marker = torch.tensor(tokenizer.encode("<|turn>model\n", add_special_tokens=False))
    ids = torch.full((8192,), 300)
    for start in range(0, 8192, 512):
        ids[start : start + len(marker)] = marker
    tokens = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids.clone(),
        "mm_token_type_ids": torch.zeros_like(ids),
    }
    nobody = torch.full_like(ids, -1)
    sample = EncodedSample(tokens=tokens, message_ids=nobody, media_ids=nobody.clone())
    prefix = ThinkingPrefix()
    tensors = [*tokens.values(), nobody, nobody]

    def copy() -> Any:
        return [[tensor.clone() for tensor in tensors] for _ in range(8)]

    def insert() -> Any:
        return [prefix(sample, tokenizer) for _ in range(8)]

    return copy, insert


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    rounds = int(os.environ.get("ROUNDS", "15"))
    table = Table("what", "bare", "ours", "ratio", "at most")
    rows: list[tuple[str, Callable[[], Any], float]] = [
        ("4 videos of 20 s, decoded and processed", video_calls, 1.15),
        ("4 sounds of 10 s, decoded and processed", audio_calls, 1.15),
        ("thinking prefix on (8, 8192), beside a copy", prefix_calls, 20.0),
    ]
    for name, calls, limit in rows:
        bare, collate = calls()
        base, ours = compare(bare, collate, rounds)
        table.add_row(
            name, f"{base * 1e3:.2f} ms", f"{ours * 1e3:.2f} ms", f"{ours / base:.2f}", f"{limit}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
