"""NeMo Automodel's collate functions and wrappers, implemented by the classes of this library.

In a configuration, only the `_target_` changes. The functions keep Automodel's conventions: an
example is `{"conversation": [...]}`, labels are shifted by one, and pixels are bfloat16 in the same
functions as in Automodel.

Shapes: B samples or packs, L a sample's tokens, T padded tokens, D documents.

Source:
    NeMo Automodel 0.7.0, `nemo_automodel.components.datasets.vlm` and `.audio`.
"""

from vlmcollate.automodel.audio import (
    nemotron_omni_collate_fn,
    phi4_mm_collate_fn,
    qwen2_5_omni_asr_collate_fn,
    qwen3_omni_asr_collate_fn,
)
from vlmcollate.automodel.collating import (
    _DEFAULT_MERGE_KERNEL,
    _expand_image_tokens,
    default_collate_fn,
    kimi_k25_vl_collate_fn,
    kimi_vl_collate_fn,
    llava_onevision_collate_fn,
    nemotron_parse_collate_fn,
    qwen2_5_collate_fn,
    qwen3_omni_collate_fn,
)
from vlmcollate.automodel.contracts import (
    DEFAULT_PACKED_SEQUENCE_CONTRACT,
    PackedSequenceContract,
    build_packed_sequence_metadata,
    resolve_packing_contract,
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
from vlmcollate.automodel.datasets import (
    PreTokenizedDatasetWrapper,
    PreTokenizedDatasetWrapperConfig,
)
from vlmcollate.automodel.dspark import build_dspark_vlm_dataloader, dspark_vlm_collate_fn
from vlmcollate.automodel.fake_image import (
    _FAKE_IMAGE,
    _batch_has_media,
    _conversation_has_media,
    inject_fake_image_into_conversation,
    mask_fake_vision_tokens_batch,
    mask_fake_vision_tokens_single,
)
from vlmcollate.automodel.gemma4 import (
    _GEMMA4_MODEL_TURN,
    _GEMMA4_THINKING_PREFIX,
    _TOKEN_AXIS_KEYS,
    _inject_thinking_prefix_tokens,
    _truncate_token_axis,
    gemma4_inject_thinking_prefix,
    gemma4_prefix_collate_fn,
)
from vlmcollate.automodel.labelling import build_labels, build_labels_from_template
from vlmcollate.automodel.loader import make_packed_dataset, packed_collate_fn
from vlmcollate.automodel.markers import (
    _IMSTART_TEMPLATE_PROCESSORS,
    _build_labels_from_markers,
    _decode_single_token,
    _derive_turn_markers,
    _find_pattern_indices,
    _get_assistant_marker,
    _get_stop_token_id,
)
from vlmcollate.automodel.packed_dataset import PackedDatasetWrapper, PackedDatasetWrapperConfig
from vlmcollate.automodel.packing import NeatPackConfig, neat_pack_dataset_vlm
from vlmcollate.automodel.packs import neat_packed_vlm_collater, packed_sequence_thd_vlm_collater
from vlmcollate.automodel.padding import pad_collate_fn
from vlmcollate.automodel.registry import COLLATE_FNS
from vlmcollate.automodel.retrying import RobustDatasetWrapper, make_robust_collate
from vlmcollate.automodel.samplers import LengthGroupedSampler
from vlmcollate.automodel.tokenized import _merge_media_values

__all__ = [
    "COLLATE_FNS",
    "DEFAULT_PACKED_SEQUENCE_CONTRACT",
    "_DEFAULT_MERGE_KERNEL",
    "_FAKE_IMAGE",
    "_GEMMA4_MODEL_TURN",
    "_GEMMA4_THINKING_PREFIX",
    "_IMSTART_TEMPLATE_PROCESSORS",
    "_TOKEN_AXIS_KEYS",
    "LengthGroupedSampler",
    "NeatPackConfig",
    "PackedDatasetWrapper",
    "PackedDatasetWrapperConfig",
    "PackedSequenceContract",
    "PreTokenizedDatasetWrapper",
    "PreTokenizedDatasetWrapperConfig",
    "RobustDatasetWrapper",
    "_batch_has_media",
    "_build_labels_from_markers",
    "_conversation_has_media",
    "_count_media_per_sample",
    "_decode_single_token",
    "_derive_turn_markers",
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
    "_merge_media_values",
    "_truncate_token_axis",
    "build_dspark_vlm_dataloader",
    "build_labels",
    "build_labels_from_template",
    "build_packed_sequence_metadata",
    "default_collate_fn",
    "dspark_vlm_collate_fn",
    "gemma4_inject_thinking_prefix",
    "gemma4_prefix_collate_fn",
    "inject_fake_image_into_conversation",
    "kimi_k25_vl_collate_fn",
    "kimi_vl_collate_fn",
    "llava_onevision_collate_fn",
    "make_packed_dataset",
    "make_robust_collate",
    "mask_fake_vision_tokens_batch",
    "mask_fake_vision_tokens_single",
    "neat_pack_dataset_vlm",
    "neat_packed_vlm_collater",
    "nemotron_omni_collate_fn",
    "nemotron_parse_collate_fn",
    "packed_collate_fn",
    "packed_sequence_thd_vlm_collater",
    "pad_collate_fn",
    "phi4_mm_collate_fn",
    "qwen2_5_collate_fn",
    "qwen2_5_omni_asr_collate_fn",
    "qwen3_omni_asr_collate_fn",
    "qwen3_omni_collate_fn",
    "resolve_packing_contract",
]
