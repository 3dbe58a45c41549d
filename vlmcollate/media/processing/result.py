"""What a processor returns for one sample's media."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch

from vlmcollate.pixels import PixelTable

NOT_MEDIA = frozenset(
    {
        "attention_mask",
        "input_ids",
        "mm_token_type_ids",
        "offset_mapping",
        "text_replacement_offsets",
        "token_type_ids",
        "video_metadata",
    }
)
"""The keys of a processor's output that hold no media tensor."""


@attrs.frozen(kw_only=True)
class ProcessedMedia:
    """One sample's media as the processor returns it.

    Attributes:
        replacements: The text that replaces each placeholder, in order.
        tensors: The processor's output; its media keys are kept.
        pixel_tables: For each key whose tensor holds bytes, what the processor makes of them.
    """

    replacements: tuple[str, ...] = ()
    tensors: Mapping[str, Any] = attrs.field(factory=dict)
    pixel_tables: Mapping[str, PixelTable] = attrs.field(factory=dict)


def as_tensor(value: Any) -> torch.Tensor:
    """Converts what a processor returns under a media key to a tensor."""
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return torch.tensor(value)  # as BatchFeature makes it: floats become float32
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
