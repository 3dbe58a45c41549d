"""Finds the control tokens that occur only in a processor's expansion of media.

SmolVLM's processor writes `<row_1_col_1>` before each tile of a large image. The chat template
never does, so only the processor's output shows that the token must not be made from text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from vlmcollate.conversation import MediaKind
from vlmcollate.encode.processor_facts import ProcessorTraits
from vlmcollate.errors import CollateError
from vlmcollate.media import Video
from vlmcollate.tokens.vocabulary import Vocabulary

_SIDE = 1344
"""Large enough to be cut into tiles, and a multiple of every patch size in use."""
_FRAMES = 8
_FRAME_SIDE = 224
_SECONDS = 2


def expansion_tokens(
    traits: ProcessorTraits, vocabulary: Vocabulary, replacement: Callable[[MediaKind, Any], str]
) -> frozenset[str]:
    """Returns the control tokens that media expands to.

    Tokens that differ from one of these only in their digits are included, since the number of
    rows, tiles or frames depends on the media.

    Args:
        traits: The processor's traits.
        vocabulary: The tokenizer's tokens.
        replacement: A function that returns the text for the placeholder of one item.
    """
    forms: set[str] = set()
    for kind in traits.placeholders:
        try:
            text = replacement(kind, _large(kind, traits.sampling_rate or 16_000))
        except (CollateError, ValueError):  # media that is refused puts no tokens in a prompt
            continue
        forms.update(map(_form, vocabulary.pattern.findall(text)))
    return frozenset(token for token in vocabulary.control_ids if _form(token) in forms)


def _form(token: str) -> str:
    return re.sub(r"\d+", "0", token)


def _large(kind: MediaKind, sampling_rate: int) -> object:
    """Returns a white image, a black video or a tone."""
    if kind == "image":
        return Image.new("RGB", (_SIDE, _SIDE), "white")
    if kind == "audio":
        return np.sin(np.arange(_SECONDS * sampling_rate) / 30).astype(np.float32) / 2
    at = np.arange(_FRAMES)
    return Video(
        frames=np.zeros((_FRAMES, _FRAME_SIDE, _FRAME_SIDE, 3), np.uint8),
        times=at / 2,
        indices=at,
        total_frames=_FRAMES,
        duration=_FRAMES / 2,
    )
