"""Real processors with a tokenizer that is trained locally, and tiny models for them.

Nothing is downloaded. The processor, the image processor and the model are the classes that
`transformers` ships; only the vocabulary is small and the weights are random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from vlmcollate.errors import ConfigError
from vlmcollate.testing.tiny_tokenizer import tiny_tokenizer

_HIDDEN = 64


def _template(header: str, footer: str, generation_prompt: str, image: str, video: str = "") -> str:
    """Writes a chat template with a header and a footer per message."""
    parts = f"{{%- if part.type == 'image' -%}}{{{{- {image!r} -}}}}"
    if video:
        parts += f"{{%- elif part.type == 'video' -%}}{{{{- {video!r} -}}}}"
    return (
        "{%- for message in messages -%}"
        f"{{{{- {header} -}}}}"
        "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
        "{%- for part in message.content -%}"
        f"{parts}"
        "{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}"
        f"{{{{- {footer!r} -}}}}"
        "{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- {generation_prompt!r} -}}}}{{%- endif -%}}"
    )


_QWEN_TEMPLATE = _template(
    "'<|im_start|>' + message.role + '\\n'",
    "<|im_end|>\n",
    "<|im_start|>assistant\n",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "<|vision_start|><|video_pad|><|vision_end|>",
)
_QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def tiny_processor(family: str = "qwen2_5_vl") -> Any:
    """Builds a processor of a family without a download.

    Args:
        family: The `transformers` model type: `"qwen2_5_vl"`, `"qwen3_vl"`, `"gemma3"`,
            `"smolvlm"` or `"llava"`.

    Returns:
        A processor of the family's class, with equal contents on every call. Its tokenizer is a
        byte-level BPE of about a thousand tokens, and an image becomes a few of them. The chat
        template differs from that of the checkpoints, but has the same stop token.

    Raises:
        ConfigError: The family is unknown.

    Example:
        >>> tiny_processor("qwen2_5_vl").tokenizer.eos_token
        '<|im_end|>'
    """
    if family not in _PROCESSORS:
        known = ", ".join(map(repr, _PROCESSORS))
        raise ConfigError(f"family is unknown: found {family!r}, expected one of {known}")
    return _PROCESSORS[family]()


def tiny_model(processor: Any, *, seed: int = 0) -> Any:
    """Builds a small model with random weights for a tiny processor.

    Args:
        processor: The processor that `tiny_processor` returned.
        seed: The seed of the weights; torch's global random state does not change.

    Returns:
        A model of the family's class in training mode, float32, on the CPU.

    Raises:
        ConfigError: The class of the processor is unknown.
    """
    build = _MODELS.get(type(processor).__name__)
    if build is None:
        known = ", ".join(_MODELS)
        raise ConfigError(
            f"processor is unknown: found {type(processor).__name__}, expected one of {known}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(processor).train()


def _qwen2_5_vl() -> Any:
    token = 28 * 28  # pixels per image token: two by two patches of 14 x 14
    size = {"shortest_edge": 4 * token, "longest_edge": 16 * token}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tiny_tokenizer(_QWEN_TOKENS, eos="<|im_end|>", pad="<|endoftext|>"),
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=_QWEN_TEMPLATE,
    )


def _qwen3_vl() -> Any:
    size = {"shortest_edge": 4 * 32 * 32, "longest_edge": 16 * 32 * 32}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, patch_size=16),
        tokenizer=tiny_tokenizer(_QWEN_TOKENS, eos="<|im_end|>", pad="<|endoftext|>"),
        video_processor=Qwen3VLVideoProcessor(size=size),
        chat_template=_QWEN_TEMPLATE,
    )


def _gemma3() -> Any:
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokens = ("<pad>", "<eos>", "<start_of_turn>", "<end_of_turn>", *named.values())
    role = "{'assistant': 'model'}.get(message.role, message.role)"
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tiny_tokenizer(tokens, eos="<eos>", pad="<pad>", **named),
        chat_template=_template(
            f"'<start_of_turn>' + {role} + '\\n'",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
            "<start_of_image>",
        ),
        image_seq_length=4,
    )


def _smolvlm() -> Any:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokens = (
        "<pad>",
        "<end_of_utterance>",
        "<fake_token_around_image>",
        "<global-img>",
        "<image>",
        *tiles,
    )
    return SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=tiny_tokenizer(tokens, eos="<end_of_utterance>", pad="<pad>"),
        video_processor=SmolVLMVideoProcessor(),
        chat_template=_template(
            "message.role.capitalize() + ':\\n'",
            "<end_of_utterance>\n",
            "Assistant:\n",
            "<image>",
            "<video>",
        ),
        image_seq_len=4,
    )


def _llava() -> Any:
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
        ),
        tokenizer=tiny_tokenizer(("<pad>", "</s>", "<image>"), eos="</s>", pad="<pad>"),
        chat_template=_template(
            "message.role.upper() + ':\\n'", "</s>", "ASSISTANT:\n", "<image>\n"
        ),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def _qwen2_5_vl_model(processor: Any) -> Any:
    tokenizer = processor.tokenizer
    ids = dict(zip(_QWEN_TOKENS, tokenizer.convert_tokens_to_ids(_QWEN_TOKENS), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 3, 3],  # half of a head's 16 channels: time, height, width
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_heads": 4,
            "out_hidden_size": _HIDDEN,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl_model(processor: Any) -> Any:
    ids = processor.tokenizer.convert_tokens_to_ids
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                **_text(processor),
                "head_dim": 16,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [2, 3, 3],
                },
            },
            vision_config={
                "depth": 1,
                "hidden_size": _HIDDEN,
                "intermediate_size": _HIDDEN,
                "num_heads": 4,
                "out_hidden_size": _HIDDEN,
                "patch_size": 16,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            image_token_id=ids("<|image_pad|>"),
            video_token_id=ids("<|video_pad|>"),
            vision_start_token_id=ids("<|vision_start|>"),
            vision_end_token_id=ids("<|vision_end|>"),
        )
    )


def _gemma3_model(processor: Any) -> Any:
    ids = processor.tokenizer.convert_tokens_to_ids
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={**_text(processor), "head_dim": 16, "sliding_window": 64},
            vision_config={**_VISION, "image_size": 56},
            mm_tokens_per_image=4,
            image_token_index=ids("<image_soft_token>"),
            boi_token_index=ids("<start_of_image>"),
            eoi_token_index=ids("<end_of_image>"),
        )
    )


def _smolvlm_model(processor: Any) -> Any:
    return SmolVLMForConditionalGeneration(
        SmolVLMConfig(
            text_config={**_text(processor), "model_type": "llama"},
            vision_config={**_VISION, "patch_size": 8, "image_size": 32},
            image_token_id=processor.tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    )


def _llava_model(processor: Any) -> Any:
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config={**_text(processor), "model_type": "llama"},
            vision_config={**_VISION, "model_type": "clip_vision_model", "image_size": 28},
            image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=4,
            vision_feature_layer=-1,
        )
    )


_VISION = {
    "hidden_size": _HIDDEN,
    "intermediate_size": _HIDDEN,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "patch_size": 14,
}


def _text(processor: Any) -> dict[str, Any]:
    """Returns the configuration of a small text model."""
    return {
        "vocab_size": len(processor.tokenizer),
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "eos_token_id": processor.tokenizer.eos_token_id,
        "pad_token_id": processor.tokenizer.pad_token_id,
    }


_PROCESSORS: dict[str, Callable[[], Any]] = {
    "gemma3": _gemma3,
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "smolvlm": _smolvlm,
}
_MODELS: dict[str, Callable[[Any], Any]] = {
    "Gemma3Processor": _gemma3_model,
    "LlavaProcessor": _llava_model,
    "Qwen2_5_VLProcessor": _qwen2_5_vl_model,
    "Qwen3VLProcessor": _qwen3_vl_model,
    "SmolVLMProcessor": _smolvlm_model,
}
