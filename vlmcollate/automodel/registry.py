"""The collate function of each processor class."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from vlmcollate.automodel.audio import nemotron_omni_collate_fn
from vlmcollate.automodel.collating import (
    default_collate_fn,
    kimi_k25_vl_collate_fn,
    kimi_vl_collate_fn,
    llava_onevision_collate_fn,
    nemotron_parse_collate_fn,
    qwen2_5_collate_fn,
    qwen3_omni_collate_fn,
)

COLLATE_FNS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "Qwen2_5_VLProcessor": qwen2_5_collate_fn,
    "Qwen3OmniMoeProcessor": qwen3_omni_collate_fn,
    "KimiVLProcessor": kimi_vl_collate_fn,
    "KimiK25Processor": kimi_k25_vl_collate_fn,
    "NemotronParseProcessor": nemotron_parse_collate_fn,
    "NemotronH_Nano_Omni_Reasoning_V3Processor": nemotron_omni_collate_fn,
    "LlavaOneVisionProcessor": llava_onevision_collate_fn,
    "default": default_collate_fn,
}
"""The collate functions by the name of the processor class."""
