"""What a processor returns for one sample's media."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch


@attrs.frozen(kw_only=True)
class ProcessedMedia:
    """What the processor made of one sample's media.

    Attributes:
        replacements: For each placeholder in order, the text that it stands for.
        tensors: What the processor returned; of it the declared media keys are kept.
    """

    replacements: tuple[str, ...] = ()
    tensors: Mapping[str, Any] = attrs.field(factory=dict)


def as_tensor(value: Any) -> torch.Tensor:
    """What a processor returned under a media key, as a tensor."""
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return torch.tensor(value)  # as BatchFeature makes it: floats become float32
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
