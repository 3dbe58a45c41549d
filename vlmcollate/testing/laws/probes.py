"""Fixed conversations that are rarely drawn: long, with wide images, several parts, or videos.

A law checks the probes that the collator accepts. The long one is checked in any case, because
every collator has to accept it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, SampleError, SampleTooLongError
from vlmcollate.testing.generators import tinted_image
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import Subject

_LONG = " ".join(f"item {number}," for number in range(400))
"""About 2,000 tokens, and more than 512 with any vocabulary."""
_ALWAYS = frozenset({"long"})
_LONG_QUESTION = " ".join(f"row {number}," for number in range(30))


def probes(subject: Subject, *names: str) -> list[Chat]:
    """Returns the probes of these names that the collator accepts.

    Args:
        subject: The collator.
        *names: Keys of `_PROBES`.
    """
    made = ((name, _PROBES[name](subject)) for name in names)
    return [
        messages
        for name, messages in made
        if messages and (name in _ALWAYS or accepts(subject.collator, messages))
    ]


def batch_probes(subject: Subject, *names: str) -> list[list[Chat]]:
    """Returns batches of a probe and a short conversation."""
    found = ([messages, subject.chat("Yes")] for messages in probes(subject, *names))
    return [examples for examples in found if _fits_the_padding(subject.collator, examples)]


def _fits_the_padding(collator: BaseCollator, examples: list[Chat]) -> bool:
    """Whether the padding has a length for all examples in one row."""
    try:
        collator.padding.padded_length([sum(len(collator.encode(each)) for each in examples)])
    except SampleTooLongError:
        return False
    return True


def six_rows(subject: Subject) -> list[Chat]:
    """Makes a batch of six rows of different lengths, some with an image."""
    return [
        subject.chat(" ".join(["Yes"] * number), images=min(number % 2, subject.images))
        for number in range(1, 7)
    ]


def unequal_images(subject: Subject) -> list[list[Chat]]:
    """Returns a batch of a small and a large image, if it is accepted."""
    rows = probes(subject, "a narrow image", "a large image")
    return [rows] if rows else []


def accepts(collator: BaseCollator, example: object) -> bool:
    """Whether a collator accepts an example."""
    try:
        collator.encode(copy.deepcopy(example))
    except (ConfigError, SampleError):  # a ConfigError: it does not support the media
        return False
    return True


def video_frames() -> Any:
    """Makes a video whose frames differ, (T, H, W, 3) uint8."""
    return np.stack([np.asarray(tinted_image(56, 56, 40 * number)) for number in range(4)])


def _with_parts(subject: Subject, parts: list[dict[str, Any]]) -> Chat:
    """Makes a conversation of one question with these parts, and its answer."""
    (*_, answer) = subject.chat("Yes")
    return [{"role": "user", "content": parts}, answer]


def _long(subject: Subject) -> Chat:
    messages = subject.chat(_LONG, "Yes") if subject.turns > 1 else subject.chat(_LONG)
    messages[0]["content"][-1]["text"] = f"Repeat this: {_LONG_QUESTION}"
    return messages


def _five_images(subject: Subject) -> Chat | None:
    return subject.chat("Yes", images=5) if subject.images > 1 else None


def _interleaved(subject: Subject) -> Chat | None:
    if not subject.images:
        return None
    parts = [_text("Zqone first,")]
    for number in range(min(2, subject.images)):
        parts += [_image(56, 56, 90 * number), _text(f" Zqtext{number} next,")]
    return _with_parts(subject, parts)


def _two_parts(subject: Subject) -> Chat:
    (*before, answer) = subject.chat("Yes")
    return [*before, {**answer, "content": [_text("It is"), _text(" a cat.")]}]


def _two_answers_in_a_row(subject: Subject) -> Chat:
    return [*subject.chat("Yes"), {"role": "assistant", "content": [_text("I am sure")]}]


def _empty(subject: Subject) -> Chat | None:
    return subject.chat("", "Yes") if subject.turns > 1 else None


def _of_size(width: int, height: int) -> Callable[[Subject], Chat | None]:
    def build(subject: Subject) -> Chat | None:
        if not subject.images:
            return None
        return _with_parts(subject, [_image(width, height, 30), _text("What is it?")])

    return build


def _video(subject: Subject) -> Chat | None:
    if "video" not in subject.collator.traits.placeholders:
        return None
    video = {"type": "video", "video": video_frames(), "fps": 2.0}
    return _with_parts(subject, [video, _text("What moves?")])


def _image_and_video(subject: Subject) -> Chat | None:
    if not subject.images or "video" not in subject.collator.traits.placeholders:
        return None
    frames = np.stack([np.asarray(tinted_image(90, 70, 30 * number)) for number in range(6)])
    video = {"type": "video", "video": frames, "fps": 2.0}
    return _with_parts(subject, [_image(56, 56, 200), video, _text("What moves?")])


def _audio_clip(subject: Subject) -> Chat | None:
    if "audio" not in subject.collator.traits.placeholders:
        return None
    wave = (np.sin(np.arange(16000) / 9) / 2).astype(np.float32)
    clip = {"type": "audio", "audio": wave, "sampling_rate": 16000}
    return _with_parts(subject, [clip, _text("What is it?")])


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(width: int, height: int, tint: int) -> dict[str, Any]:
    return {"type": "image", "image": tinted_image(width, height, tint)}


_PROBES: Mapping[str, Callable[[Subject], Chat | None]] = {
    "long": _long,
    "five images": _five_images,
    "text, image, text": _interleaved,
    "two parts": _two_parts,
    "two answers in a row": _two_answers_in_a_row,
    "an empty answer": _empty,
    "a large image": _of_size(700, 260),
    "a narrow image": _of_size(30, 170),
    "a video": _video,
    "an image and a video": _image_and_video,
    "an audio clip": _audio_clip,
}
