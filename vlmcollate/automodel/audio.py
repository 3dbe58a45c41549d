"""Collating conversations with audio: Phi-4, Nemotron Omni and the ASR functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmcollate.automodel.conventions import (
    Example,
    Variables,
    automodel_collator,
    conversations_of,
    with_bfloat16,
)
from vlmcollate.automodel.encoding import collated
from vlmcollate.errors import ConfigError, ConversationError, MediaError
from vlmcollate.media import FrameSampling, LocalMedia


def phi4_mm_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Phi-4-multimodal with one audio an example.

    Args:
        examples: `{"conversation": [...], "audio": ...}` each; the audio is an array, (array,
            rate), or {"array", "sampling_rate"}, and stands where the first user message spells
            `<|audio_1|>`, or before it. Images in the conversation are kept.
        processor: The processor.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`, with `input_mode`, (1,): 2, or 3 with images.

    Raises:
        ConfigError: An example has no audio.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    silent = [index for index, example in enumerate(examples) if example.get("audio") is None]
    if silent:
        raise ConfigError(
            f"sample {silent[0]} has no audio: expected an array under 'audio'; use "
            "default_collate_fn for data without audio"
        )
    heard = _with_audio(examples, collator.traits.sampling_rate, "<|audio_1|>")
    batch = collated(collator, heard)
    return {**batch, "input_mode": torch.tensor([3 if "n_images_per_sample" in batch else 2])}


def nemotron_omni_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    max_video_frames: int = 8,
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Nemotron Omni: text, images, a video and audio.

    Args:
        examples: `{"conversation": [...]}` each, with an optional `"audio"`, an array at the
            model's rate or (array, rate). It stands where the first user message spells the
            processor's audio token, or before it.
        processor: The processor.
        max_length: The length of the batch before the shift; longer samples are truncated, never
            inside media.
        max_video_frames: The maximum number of frames of a video, evenly over its time.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`, with the media keys of the processor.
    """
    frames = FrameSampling(fps=None, num_frames=max_video_frames)
    collator = automodel_collator(
        processor,
        max_length,
        template_kwargs=template_kwargs,
        shift_labels=True,
        media=LocalMedia(frames=frames),
    )
    spelled = collator.traits.placeholders.get("audio", "")
    heard = _with_audio(examples, collator.traits.sampling_rate, spelled)
    return with_bfloat16(collated(collator, heard))


def qwen3_omni_asr_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates speech recognition for Qwen3-Omni.

    Args:
        examples: `{"conversation": [...]}` each, that ends with an assistant's text. Audio is a
            one-dimensional array or tensor of numbers at the model's rate.
        processor: The processor.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`.

    Raises:
        ConversationError: A conversation ends otherwise.
        MediaError: An audio is no such array.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    heard = []
    for index, messages in enumerate(conversations_of(examples)):
        if not _ends_with_an_answer(messages):
            raise ConversationError(
                "the conversation does not end with an assistant message with text: expected the "
                "transcript there; append it, or leave the sample out",
                index=index,
            )
        parts = _with_rate(messages, collator.traits.sampling_rate, index)
        heard.append({**examples[index], "conversation": parts})
    return collated(collator, heard)


def qwen2_5_omni_asr_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates speech recognition for Qwen2.5-Omni; see `qwen3_omni_asr_collate_fn`."""
    return qwen3_omni_asr_collate_fn(examples, processor, template_kwargs=template_kwargs)


def _ends_with_an_answer(messages: Any) -> bool:
    last = messages[-1] if isinstance(messages, list | tuple) and messages else None
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        return False
    content = last.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content
    return any(
        isinstance(part, Mapping) and str(part.get("text") or "").strip() for part in parts or ()
    )


def _with_rate(messages: Sequence[Any], rate: int | None, index: int) -> list[Any]:
    """The messages with each audio as (samples, rate)."""

    def converted(part: Any, where: str) -> Any:
        if not isinstance(part, Mapping) or part.get("type") != "audio":
            return part
        wave = part.get("audio")
        wave = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else wave
        is_array = isinstance(wave, np.ndarray)
        shape, kind = (wave.shape, wave.dtype) if isinstance(wave, np.ndarray) else ((), object)
        if len(shape) != 1 or not np.issubdtype(kind, np.number):
            found = f"shape {shape}, {kind}" if is_array else type(wave).__name__
            raise MediaError(
                f"the audio is no waveform: found {found}, expected a one-dimensional array of "
                "numbers; decode it, or mix it to one channel",
                index=index,
                where=where,
            )
        return {**part, "audio": (wave, rate)}

    found = []
    for number, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            places = (f"messages[{number}].content[{i}]" for i in range(len(content)))
            content = [converted(p, w) for p, w in zip(content, places, strict=True)]
        found.append({**message, "content": content})
    return found


def _with_audio(examples: Sequence[Example], rate: int | None, spelled: str) -> list[Any]:
    """The examples with what is under `"audio"` as a part of the conversation."""
    conversations = conversations_of(examples)
    return [
        example
        if example.get("audio") is None
        else {**example, "conversation": _with_sound(messages, example["audio"], rate, spelled)}
        for example, messages in zip(examples, conversations, strict=True)
    ]


def _with_sound(conversation: Any, audio: Any, rate: int | None, spelled: str) -> list[Any]:
    """The conversation with the audio as a part of its first user message."""
    if not isinstance(audio, tuple | list | Mapping):
        audio = (audio, rate)  # Automodel takes an array alone for one at the model's rate
    elif isinstance(audio, list):
        audio = tuple(audio) if len(audio) == 2 and np.ndim(audio[0]) else (np.asarray(audio), rate)
    part = {"type": "audio", "audio": audio}
    messages = [dict(message) for message in conversation]
    first = next((m for m in messages if m.get("role") == "user"), None)
    if first is None:
        raise ConfigError("an example with audio needs a user message for it; add one")
    content = first["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    for at, piece in enumerate(parts):
        text = piece.get("text") if isinstance(piece, Mapping) else None
        if spelled and isinstance(text, str) and spelled in text:
            before, after = text.split(spelled, 1)
            texts = [{"type": "text", "text": t} for t in (before, after)]
            parts[at : at + 1] = [*(texts[:1] if before else []), part, *texts[1:]]
            break
    else:
        parts.insert(0, part)
    first["content"] = parts
    return messages
