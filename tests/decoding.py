"""Reading a batch back into text, the way a person would check it."""

from __future__ import annotations

import unicodedata
from typing import Any

from torch import Tensor


def trained_texts(tokenizer: Any, input_ids: Tensor, labels: Tensor) -> list[str]:
    """The decoded runs of trained tokens of one row."""
    runs: list[list[int]] = []
    inside = False
    for token, label in zip(input_ids.tolist(), labels.tolist(), strict=True):
        if label != -100:
            assert label == token
            runs.append([]) if not inside else None
            runs[-1].append(token)
        inside = label != -100
    return [tokenizer.decode(run) for run in runs]


def normal(text: str) -> str:
    """Text as the tokenizers normalise it (NFC; Gemma's space)."""
    return unicodedata.normalize("NFC", text).replace("▁", " ")
