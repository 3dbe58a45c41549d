"""Fixed conversations that are rarely drawn: long, wide, in several parts, with moving media.

A law tries those that the collator takes; what it refuses is left out, but for
a long sample, which every collator has to take.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, SampleError
from vlmcollate.testing.generators import picture
from vlmcollate.testing.laws.for_all import Chat
from vlmcollate.testing.laws.subject import Subject

_LONG = " ".join(f"item {number}," for number in range(400))
"""About 2,000 tokens, and more than 512 of any vocabulary."""
_ALWAYS = frozenset({"long"})
_LONG_QUESTION = " ".join(f"row {number}," for number in range(30))


def probes(subject: Subject, *names: str) -> list[Chat]:
    """The probes of these names that the collator takes.

    Args:
        subject: The collator.
        *names: Keys of the table below.
    """
    built = ((name, _PROBES[name](subject)) for name in names)
    return [
        messages
        for name, messages in built
        if messages and (name in _ALWAYS or takes(subject.collator, messages))
    ]


def batch_probes(subject: Subject, *names: str) -> list[list[Chat]]:
    """Batches of two with such a probe; no long one if the padding has a length of its own."""
    is_fixed = getattr(subject.collator.padding, "length", None) is not None
    fitting = [name for name in names if not (is_fixed and name == "long")]
    return [[messages, subject.chat("Yes")] for messages in probes(subject, *fitting)]


def six_rows(subject: Subject) -> list[Chat]:
    """A batch of more rows than are drawn, no two of one length, some with a picture."""
    return [
        subject.chat(" ".join(["Yes"] * number), images=min(number % 2, subject.images))
        for number in range(1, 7)
    ]


def unequal_images(subject: Subject) -> list[list[Chat]]:
    """A batch whose images have two sizes, the larger one not in the first row, if it is taken."""
    rows = probes(subject, "a narrow image", "a large image")
    return [rows] if rows else []


def takes(collator: BaseCollator, example: object) -> bool:
    """Whether a collator takes an example."""
    try:
        collator.encode(copy.deepcopy(example))
    except (ConfigError, SampleError):  # the former: it cannot serve a kind of media
        return False
    return True


def video_frames() -> Any:
    """A video whose frames differ, (T, H, W, 3) uint8."""
    return np.stack([np.asarray(picture(56, 56, 40 * number)) for number in range(4)])


def _with_parts(subject: Subject, parts: list[dict[str, Any]]) -> Chat:
    """One question of these parts, and its answer."""
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


def _in_a_row(subject: Subject) -> Chat:
    return [*subject.chat("Yes"), {"role": "assistant", "content": [_text("I am sure")]}]


def _empty(subject: Subject) -> Chat | None:
    return subject.chat("", "Yes") if subject.turns > 1 else None


def _of_size(width: int, height: int) -> Callable[[Subject], Chat | None]:
    def built(subject: Subject) -> Chat | None:
        if not subject.images:
            return None
        return _with_parts(subject, [_image(width, height, 30), _text("What is it?")])

    return built


def _video(subject: Subject) -> Chat | None:
    if "video" not in subject.collator.traits.placeholders:
        return None
    video = {"type": "video", "video": video_frames(), "fps": 2.0}
    return _with_parts(subject, [video, _text("What moves?")])


def _sound(subject: Subject) -> Chat | None:
    if "audio" not in subject.collator.traits.placeholders:
        return None
    wave = (np.sin(np.arange(16000) / 9) / 2).astype(np.float32)
    sound = {"type": "audio", "audio": wave, "sampling_rate": 16000}
    return _with_parts(subject, [sound, _text("What is it?")])


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(width: int, height: int, tint: int) -> dict[str, Any]:
    return {"type": "image", "image": picture(width, height, tint)}


_PROBES: Mapping[str, Callable[[Subject], Chat | None]] = {
    "long": _long,
    "five images": _five_images,
    "text, image, text": _interleaved,
    "two parts": _two_parts,
    "two answers in a row": _in_a_row,
    "an empty answer": _empty,
    "a large image": _of_size(700, 260),
    "a narrow image": _of_size(30, 170),
    "a video": _video,
    "a sound": _sound,
}
