"""Tiny models of further families, of the real classes and with random weights.

`MODELS` maps a processor class to a function that builds the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
_VIT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 14,
}
_PATCHES: dict[str, Any] = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 32,
}
_MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
_TILES = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]


def _id(processor: Any, token: str) -> int:
    return int(processor.tokenizer.convert_tokens_to_ids(token))


def _text(processor: Any, model_type: str = "", **more: Any) -> dict[str, Any]:
    tokenizer = processor.tokenizer
    named = {"model_type": model_type} if model_type else {}
    known = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    return {**_TEXT, **known, **named, **more}


def _siglip(processor: Any) -> dict[str, Any]:
    side = processor.image_processor.size["height"]
    named = {"model_type": "siglip_vision_model", "vision_use_head": False}
    return {**_VIT, **named, "image_size": side}


def _paligemma(p: Any) -> Any:
    config = hf.PaliGemmaConfig(
        text_config=_text(p, "gemma"),
        vision_config={**_siglip(p), "projection_dim": 32},
        image_token_index=_id(p, p.image_token),
        projection_dim=32,
        hidden_size=32,
    )
    return hf.PaliGemmaForConditionalGeneration(config)


def _llava(p: Any) -> Any:
    config = hf.LlavaConfig(
        text_config=_text(p, "llama"),
        vision_config={**_VIT, "model_type": "clip_vision_model", "image_size": 28},
        image_token_index=_id(p, "<image>"),
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    return hf.LlavaForConditionalGeneration(config)


def _llava_next(p: Any) -> Any:
    config = hf.LlavaNextConfig(
        text_config=_text(p, "llama"),
        vision_config={**_VIT, "model_type": "clip_vision_model", "image_size": 28},
        image_token_index=_id(p, "<image>"),
        vision_feature_layer=-1,
        image_grid_pinpoints=p.image_processor.image_grid_pinpoints,
    )
    return hf.LlavaNextForConditionalGeneration(config)


def _pixtral(p: Any) -> Any:
    vision = {**_VIT, "model_type": "pixtral", "patch_size": p.patch_size, "image_size": 1024}
    config = hf.LlavaConfig(
        text_config=_text(p, "mistral"),
        vision_config={**vision, "head_dim": 16},
        image_token_index=_id(p, p.image_token),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
    )
    return hf.LlavaForConditionalGeneration(config)


def _glm4v(p: Any) -> Any:
    config = hf.Glm4vConfig(
        text_config=_text(p, rope_parameters={**_MROPE, "partial_rotary_factor": 1.0}),
        vision_config=_PATCHES,
        image_token_id=_id(p, "<|image|>"),
        video_token_id=_id(p, "<|video|>"),
        image_start_token_id=_id(p, "<|begin_of_image|>"),
        image_end_token_id=_id(p, "<|end_of_image|>"),
        video_start_token_id=_id(p, "<|begin_of_video|>"),
        video_end_token_id=_id(p, "<|end_of_video|>"),
    )
    return hf.Glm4vForConditionalGeneration(config)


def _mllama(p: Any) -> Any:
    config = hf.MllamaConfig(
        text_config=_text(p, num_hidden_layers=2, cross_attention_layers=[1]),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_global_layers": 1,
            "attention_heads": 2,
            "patch_size": 14,
            "image_size": p.image_processor.size["height"],
            "max_num_tiles": p.image_processor.max_image_tiles,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 64,
            "supported_aspect_ratios": _TILES,
        },
        image_token_index=_id(p, p.image_token),
    )
    return hf.MllamaForConditionalGeneration(config)


def _internvl(p: Any) -> Any:
    side = p.image_processor.size["height"]
    patch = int(side / (2 * p.image_seq_length**0.5))  # four patches make a token
    config = hf.InternVLConfig(
        text_config=_text(p, "qwen2"),
        vision_config={**_VIT, "image_size": [side, side], "patch_size": [patch, patch]},
        image_token_id=_id(p, p.image_token),
        image_seq_length=p.image_seq_length,
    )
    return hf.InternVLForConditionalGeneration(config)


def _lfm2_vl(p: Any) -> Any:
    kinds = {"num_hidden_layers": 2, "layer_types": ["full_attention", "conv"]}
    config = hf.Lfm2VlConfig(
        text_config=_text(p, "lfm2", conv_L_cache=3, block_multiple_of=8, **kinds),
        vision_config={
            **_VIT,
            "model_type": "siglip2_vision_model",
            "patch_size": 16,
            "num_patches": 256,
            "vision_use_head": False,
        },
        image_token_id=_id(p, p.image_token),
        downsample_factor=2,
        projector_hidden_size=32,
    )
    return hf.Lfm2VlForConditionalGeneration(config)


def _audio(p: Any) -> dict[str, Any]:
    return {
        "d_model": 32,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "output_dim": 32,
        "num_mel_bins": p.feature_extractor.feature_size,
    }


def _edges(p: Any) -> dict[str, int]:
    tokens = {
        "vision_start": p.vision_bos_token,
        "vision_end": p.vision_eos_token,
        "audio_start": p.audio_bos_token,
        "audio_end": p.audio_eos_token,
    }
    return {f"{name}_token_id": _id(p, token) for name, token in tokens.items()}


def _qwen2_5_omni(p: Any) -> Any:
    config = hf.Qwen2_5OmniThinkerConfig(
        text_config=_text(p, rope_parameters=_MROPE),
        vision_config={**_PATCHES, "fullatt_block_indexes": [0]},
        audio_config=_audio(p),
        image_token_index=_id(p, p.image_token),
        video_token_index=_id(p, p.video_token),
        audio_token_index=_id(p, p.audio_token),
        **_edges(p),
    )
    return hf.Qwen2_5OmniThinkerForConditionalGeneration(config)


def _qwen3_omni(p: Any) -> Any:
    experts: dict[str, Any] = {
        "moe_intermediate_size": 32,
        "num_experts": 2,
        "num_experts_per_tok": 1,
    }
    config = hf.Qwen3OmniMoeThinkerConfig(
        text_config=_text(p, rope_parameters=_MROPE, **experts),
        vision_config={
            **_PATCHES,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        audio_config={**_audio(p), "downsample_hidden_size": 32},
        image_token_id=_id(p, p.image_token),
        video_token_id=_id(p, p.video_token),
        audio_token_id=_id(p, p.audio_token),
        **_edges(p),
    )
    return hf.Qwen3OmniMoeThinkerForConditionalGeneration(config)


MODELS: dict[str, Callable[[Any], Any]] = {
    "Glm4vProcessor": _glm4v,
    "InternVLProcessor": _internvl,
    "Lfm2VlProcessor": _lfm2_vl,
    "LlavaNextProcessor": _llava_next,
    "LlavaProcessor": _llava,
    "MllamaProcessor": _mllama,
    "PaliGemmaProcessor": _paligemma,
    "PixtralProcessor": _pixtral,
    "Qwen2_5OmniProcessor": _qwen2_5_omni,
    "Qwen3OmniMoeProcessor": _qwen3_omni,
}
