"""Tiny configurations of any model of transformers, from its own configuration class."""

from __future__ import annotations

from typing import Any

import transformers as hf

WINDOW = 8
"""How many tokens sliding layers see, and chunked ones hold."""

_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "intermediate_size_mlp": 32,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "projector_hidden_size": 32,
    "out_hidden_size": 32,
    "embed_dim": 32,
    "depth": 1,
    "num_heads": 2,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 100,
    "vocab_size_per_layer_input": 100,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "altup_num_inputs": 2,
    "laurel_rank": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "num_experts": 2,
    "num_local_experts": 2,
    "n_routed_experts": 2,
    "num_experts_per_tok": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "sliding_window": WINDOW,
    "attention_chunk_size": WINDOW,
    "image_size": 28,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "ssm_state_size": 8,
    "n_groups": 1,
    "chunk_size": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "d_model": 32,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 8,
}
_MROPE = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
_CONVOLVED = {"layer_types": ["conv", "full_attention", "conv", "full_attention"]}
_SLIDING = {
    "use_sliding_window": True,
    "layer_types": ["full_attention", "sliding_attention"] * 2,
}
_LATENT = {"head_dim": 8}  # the rotary part of multi-head latent attention

MORE: dict[str, dict[str, Any]] = {
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "janus": {
        "vq_config": {
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "image_token_embed_dim": 32,
            "latent_channels": 32,
            "num_embeddings": 64,
            "projection_dim": 32,
        }
    },
    "kimi_k25": {"text_config": _LATENT},
    "lfm2": _CONVOLVED,
    "lfm2_moe": _CONVOLVED,
    "lfm2_vl": {"text_config": _CONVOLVED},
    "muse_spark": {"audio_config": {"hidden_sizes": [16, 16, 16, 16]}},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "qwen2": _SLIDING,
    "qwen2_moe": _SLIDING,
    "qwen2_vl": {"text_config": {"rope_parameters": _MROPE, **_SLIDING}},
    "qwen2_5_vl": {"text_config": {"rope_parameters": _MROPE, **_SLIDING}},
    "qwen3": _SLIDING,
    "qwen3_moe": {"use_sliding_window": True},
    "smollm3": _SLIDING,
    "step3p7": {"text_config": _SLIDING},
}
"""What single models need beyond that."""


def tiny_config(model_type: str, more: dict[str, Any] | None = None) -> Any:
    """A small configuration with one layer at least of each kind that the default one has."""
    more = MORE.get(model_type, {}) if more is None else more
    return _small(hf.CONFIG_MAPPING[model_type], more)


def _small(kind: Any, more: dict[str, Any]) -> Any:
    default, parts = kind(), getattr(kind, "sub_configs", None) or {}
    options = {
        key: value
        for key, value in _SMALL.items()
        if key not in parts and _takes(kind, default, key)
    }
    for name, allowed in (("layer_types", "num_hidden_layers"), ("mlp_layer_types", "")):
        declared = _takes(kind, default, name) and getattr(default, name, None)
        if declared:
            kinds = list(dict.fromkeys(declared))
            count = max(options.get("num_hidden_layers", 4), len(kinds))
            options[name] = (kinds * count)[:count]
            if allowed:
                options[allowed] = count
    rope = getattr(default, "rope_parameters", None)
    if isinstance(rope, dict) and "mrope_section" in rope:
        options["rope_parameters"] = {
            **rope,
            "mrope_section": [2, 3, 3],
            "partial_rotary_factor": 1.0,
        }
    for part in parts:
        given = getattr(default, part, None)
        if given is not None:
            options[part] = _small(type(given), more.get(part, {})).to_dict()
    return kind(**{**options, **{k: v for k, v in more.items() if k not in parts}})


def _takes(kind: Any, default: Any, key: str) -> bool:
    declared = getattr(kind, key, None)
    if isinstance(declared, property) and declared.fset is None:
        return False
    value = getattr(default, key, None)
    return hasattr(default, key) and (key.endswith("types") or not isinstance(value, list | dict))
