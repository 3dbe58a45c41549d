"""Tiny models of every family, of the real classes and with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}
_MROPE = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 14,
}


def _qwen2(processor: Any, config: Any, model: Any, vision: dict[str, Any]) -> Any:
    tokenizer = processor.tokenizer
    return model(
        config(
            text_config={**_TEXT, "vocab_size": len(tokenizer), "rope_parameters": _MROPE},
            vision_config=vision,
            image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
            video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
            vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        )
    )


def _qwen3_5(processor: Any, vision: dict[str, Any]) -> Any:
    """One layer of each kind: linear attention, and full attention."""
    tokenizer = processor.tokenizer
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    text = {**_TEXT, **linear, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    return Qwen3_5ForConditionalGeneration(
        Qwen3_5Config(
            text_config={
                **text,
                "num_hidden_layers": 2,
                "layer_types": ["linear_attention", "full_attention"],
                "vocab_size": len(tokenizer),
                "rope_parameters": {**_MROPE, "partial_rotary_factor": 1.0},
            },
            vision_config=vision,
            image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
            video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
            vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        )
    )


def _idefics(processor: Any, config: Any, model: Any) -> Any:
    tokenizer = processor.tokenizer
    text = {**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)}
    return model(
        config(
            text_config={**text, "pad_token_id": tokenizer.pad_token_id},
            vision_config={**_SIGLIP, "patch_size": 8, "image_size": 32},
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _gemma3(processor: Any) -> Any:
    tokenizer = processor.tokenizer
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={**_TEXT, "vocab_size": len(tokenizer), "sliding_window": 64},
            vision_config={**_SIGLIP, "image_size": 56},
            mm_tokens_per_image=4,
            image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
            boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
            eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        )
    )


def _llava_onevision(processor: Any) -> Any:
    tokenizer = processor.tokenizer
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            text_config={**_TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
            vision_config={
                **_SIGLIP,
                "model_type": "siglip_vision_model",
                "image_size": 28,
                "vision_use_head": False,
            },
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
            image_grid_pinpoints=processor.image_processor.image_grid_pinpoints,
            vision_feature_layer=-1,
        )
    )


def tiny_model(name: str, processor: Any) -> Any:
    """A family's model, small enough for a test; `None` where transformers has no small config."""
    torch.manual_seed(0)
    vision: dict[str, Any] = {"depth": 1, "num_heads": 2, "intermediate_size": 32}
    if name == "qwen2_vl":
        config = {**vision, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
        model = _qwen2(processor, Qwen2VLConfig, Qwen2VLForConditionalGeneration, config)
    elif name == "qwen2_5_vl":
        config = {**vision, "hidden_size": 32, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
        model = _qwen2(processor, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, config)
    elif name == "qwen3_5":
        config = {
            **vision,
            "hidden_size": 32,
            "out_hidden_size": 32,
            "patch_size": 16,
            "num_position_embeddings": 16,
        }
        model = _qwen3_5(processor, config)
    elif name == "qwen3_vl":
        config = {
            **vision,
            "hidden_size": 32,
            "out_hidden_size": 32,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        }
        model = _qwen2(processor, Qwen3VLConfig, Qwen3VLForConditionalGeneration, config)
    elif name == "gemma3":
        model = _gemma3(processor)
    elif name == "smolvlm":
        model = _idefics(processor, SmolVLMConfig, SmolVLMForConditionalGeneration)
    elif name == "idefics3":
        model = _idefics(processor, Idefics3Config, Idefics3ForConditionalGeneration)
    else:
        model = _llava_onevision(processor)
    return model
