"""Automodel's collate functions for audio: Phi-4, Nemotron Omni and speech recognition."""

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
    cast_pixels,
    conversations_of,
)
from vlmcollate.automodel.encoding import collate_conversations
from vlmcollate.errors import ConfigError, ConversationError, MediaError
from vlmcollate.media import FrameSampling, LocalMedia


def phi4_mm_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Phi-4-multimodal with one audio clip per example.

    Args:
        examples: The examples, `{"conversation": [...], "audio": ...}`. The audio is an array, an
            (array, rate) pair, or a dict with `array` and `sampling_rate`. It replaces
            `<|audio_1|>` in the first user message, or precedes the message. Images are kept.
        processor: The processor.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`, with `input_mode`, (1,) int64: 2, or 3 with images.

    Raises:
        ConfigError: An example has no audio.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    missing = [index for index, example in enumerate(examples) if example.get("audio") is None]
    if missing:
        raise ConfigError(
            f"sample {missing[0]} has no audio: expected an array under 'audio'; use "
            "default_collate_fn for data without audio"
        )
    converted_examples = _move_audio(examples, collator.traits.sampling_rate, "<|audio_1|>")
    batch = collate_conversations(collator, converted_examples)
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
        examples: The examples, `{"conversation": [...]}`, optionally with the key `audio`: an array
            at the model's sampling rate, or an (array, rate) pair. It replaces the processor's
            audio token in the first user message, or precedes the message.
        processor: The processor.
        max_length: The length of the batch before the shift. Longer samples are truncated, but
            never inside media.
        max_video_frames: The maximum number of frames of a video, sampled evenly over its duration.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

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
    placeholder = collator.traits.placeholders.get("audio", "")
    converted_examples = _move_audio(examples, collator.traits.sampling_rate, placeholder)
    return cast_pixels(collate_conversations(collator, converted_examples))


def qwen3_omni_asr_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates speech recognition for Qwen3-Omni.

    Args:
        examples: The examples, `{"conversation": [...]}`, each of which ends with an assistant
            message with text. Audio is a one-dimensional array or tensor of numbers at the model's
            sampling rate.
        processor: The processor.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`.

    Raises:
        ConversationError: A conversation does not end with the text of an assistant message.
        MediaError: The audio is no such array.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    converted_examples = []
    for index, messages in enumerate(conversations_of(examples)):
        if not _ends_with_an_answer(messages):
            raise ConversationError(
                "the conversation has no transcript: expected an assistant message with text at "
                "its end; append it, or drop the sample",
                index=index,
            )
        parts = _add_sampling_rate(messages, collator.traits.sampling_rate, index)
        converted_examples.append({**examples[index], "conversation": parts})
    return collate_conversations(collator, converted_examples)


def qwen2_5_omni_asr_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Qwen2.5-Omni; see `qwen3_omni_asr_collate_fn`."""
    return qwen3_omni_asr_collate_fn(examples, processor, template_kwargs=template_kwargs)


def _ends_with_an_answer(messages: Any) -> bool:
    """Whether the last message is an assistant message with text."""
    last = messages[-1] if isinstance(messages, list | tuple) and messages else None
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        return False
    content = last.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content
    return any(
        isinstance(part, Mapping) and str(part.get("text") or "").strip() for part in parts or ()
    )


def _add_sampling_rate(messages: Sequence[Any], rate: int | None, index: int) -> list[Any]:
    """Replaces each audio array of the messages by an (array, rate) pair."""

    def convert(part: Any, where: str) -> Any:
        if not isinstance(part, Mapping) or part.get("type") != "audio":
            return part
        wave = part.get("audio")
        wave = wave.detach().cpu().numpy() if isinstance(wave, Tensor) else wave
        is_array = isinstance(wave, np.ndarray)
        shape, kind = (wave.shape, wave.dtype) if isinstance(wave, np.ndarray) else ((), object)
        if len(shape) != 1 or not np.issubdtype(kind, np.number):
            found = f"shape {shape}, {kind}" if is_array else type(wave).__name__
            raise MediaError(
                f"the audio is not a waveform: found {found}, expected a one-dimensional array of "
                "numbers; decode it, or mix it to one channel",
                index=index,
                where=where,
            )
        return {**part, "audio": (wave, rate)}

    found = []
    for number, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            content = [
                convert(part, f"messages[{number}].content[{i}]") for i, part in enumerate(content)
            ]
        found.append({**message, "content": content})
    return found


def _move_audio(examples: Sequence[Example], rate: int | None, placeholder: str) -> list[Any]:
    """Moves the audio of each example into its conversation."""
    conversations = conversations_of(examples)
    return [
        example
        if example.get("audio") is None
        else {
            **example,
            "conversation": _insert_audio(messages, example["audio"], rate, placeholder),
        }
        for example, messages in zip(examples, conversations, strict=True)
    ]


def _insert_audio(conversation: Any, audio: Any, rate: int | None, placeholder: str) -> list[Any]:
    """Inserts audio into the first user message."""
    if not isinstance(audio, tuple | list | Mapping):
        audio = (audio, rate)  # as in Automodel, an array alone has the model's rate
    elif isinstance(audio, list):
        audio = tuple(audio) if len(audio) == 2 and np.ndim(audio[0]) else (np.asarray(audio), rate)
    part = {"type": "audio", "audio": audio}
    messages = [dict(message) for message in conversation]
    first = next((m for m in messages if m.get("role") == "user"), None)
    if first is None:
        raise ConfigError(
            "the conversation has no user message: expected one for the audio; add a user message"
        )
    content = first["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    for index, piece in enumerate(parts):
        text = piece.get("text") if isinstance(piece, Mapping) else None
        if placeholder and isinstance(text, str) and placeholder in text:
            before, after = text.split(placeholder, 1)
            texts = [{"type": "text", "text": t} for t in (before, after)]
            parts[index : index + 1] = [*(texts[:1] if before else []), part, *texts[1:]]
            break
    else:
        parts.insert(0, part)
    first["content"] = parts
    return messages
