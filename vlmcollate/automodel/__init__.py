"""NeMo Automodel's names for collating, over the classes of this library.

A configuration changes its `_target_` and nothing else. The functions keep Automodel's conventions:
an example is `{"conversation": [...]}`, labels are shifted by one, pixels are bfloat16 where
Automodel's are.

Shapes: B samples or packs, L a sample's tokens, T padded tokens, D documents.

Source:
    NeMo Automodel, `nemo_automodel.components.datasets.vlm`.
"""

from vlmcollate.automodel.collating import (
    COLLATE_FNS,
    _expand_image_tokens,
    _inject_thinking_prefix_tokens,
    default_collate_fn,
    gemma4_prefix_collate_fn,
    kimi_k25_vl_collate_fn,
    kimi_vl_collate_fn,
    make_robust_collate,
    nemotron_parse_collate_fn,
    phi4_mm_collate_fn,
    qwen2_5_collate_fn,
    qwen3_omni_collate_fn,
)
from vlmcollate.automodel.conversations import (
    _count_media_per_sample,
    _drop_overlong_samples,
    _ensure_rgb,
    _estimate_media_tokens,
    _extract_assistant_text,
    _extract_image_config,
    _extract_media_from_conversations,
)
from vlmcollate.automodel.datasets import PackedDatasetWrapper, PreTokenizedDatasetWrapper
from vlmcollate.automodel.labelling import (
    _decode_single_token,
    _find_pattern_indices,
    _get_assistant_marker,
    _get_stop_token_id,
    build_labels,
    build_labels_from_template,
)
from vlmcollate.automodel.padding import (
    neat_packed_vlm_collater,
    packed_sequence_thd_vlm_collater,
    pad_collate_fn,
)
from vlmcollate.data import LengthGroupedSampler

__all__ = [
    "COLLATE_FNS",
    "LengthGroupedSampler",
    "PackedDatasetWrapper",
    "PreTokenizedDatasetWrapper",
    "_count_media_per_sample",
    "_decode_single_token",
    "_drop_overlong_samples",
    "_ensure_rgb",
    "_estimate_media_tokens",
    "_expand_image_tokens",
    "_extract_assistant_text",
    "_extract_image_config",
    "_extract_media_from_conversations",
    "_find_pattern_indices",
    "_get_assistant_marker",
    "_get_stop_token_id",
    "_inject_thinking_prefix_tokens",
    "build_labels",
    "build_labels_from_template",
    "default_collate_fn",
    "gemma4_prefix_collate_fn",
    "kimi_k25_vl_collate_fn",
    "kimi_vl_collate_fn",
    "make_robust_collate",
    "neat_packed_vlm_collater",
    "nemotron_parse_collate_fn",
    "packed_sequence_thd_vlm_collater",
    "pad_collate_fn",
    "phi4_mm_collate_fn",
    "qwen2_5_collate_fn",
    "qwen3_omni_collate_fn",
]
