"""Qwen2-VL to Qwen3.5 and the Qwen Omni models; the Omni templates are stand-ins."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.assets import chat_template
from tests.processors.template_stand_ins import chatml
from tests.processors.tokenizers import tokenizer


def qwen2_vl() -> Any:
    """Qwen2-VL; its template is Qwen2.5-VL's to the letter."""
    return hf.Qwen2VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(),
        video_processor=hf.Qwen2VLVideoProcessor(),
        tokenizer=tokenizer("qwen2_5"),
        chat_template=chat_template("qwen2_5_vl"),
    )


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL."""
    return hf.Qwen2_5_VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(),
        video_processor=hf.Qwen2VLVideoProcessor(),
        tokenizer=tokenizer("qwen2_5"),
        chat_template=chat_template("qwen2_5_vl"),
    )


def qwen3_vl(template: str = "qwen3_vl") -> Any:
    """Qwen3-VL, or a model with its processor and another template."""
    return hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(
            patch_size=16, min_pixels=4096, max_pixels=1 << 24
        ),
        video_processor=hf.Qwen3VLVideoProcessor(),
        tokenizer=tokenizer("qwen3"),
        chat_template=chat_template(template),
    )


def qwen3_5() -> Any:
    """Qwen3.5 without thinking: Qwen3-VL's processor with another template."""
    return qwen3_vl("qwen3_5_nothink")


def qwen2_5_omni() -> Any:
    """Qwen2.5-Omni."""
    return hf.Qwen2_5OmniProcessor(
        image_processor=hf.Qwen2VLImageProcessor(),
        video_processor=hf.Qwen2VLVideoProcessor(),
        feature_extractor=hf.WhisperFeatureExtractor(feature_size=128, chunk_length=30),
        tokenizer=tokenizer(
            "qwen2_5",
            image_token="<|IMAGE|>",
            video_token="<|VIDEO|>",
            audio_token="<|AUDIO|>",
            vision_bos_token="<|vision_bos|>",
            vision_eos_token="<|vision_eos|>",
            audio_bos_token="<|audio_bos|>",
            audio_eos_token="<|audio_eos|>",
        ),
        chat_template=chatml(
            "<|vision_bos|><|IMAGE|><|vision_eos|>",
            "<|vision_bos|><|VIDEO|><|vision_eos|>",
            "<|audio_bos|><|AUDIO|><|audio_eos|>",
        ),
    )


def qwen3_omni() -> Any:
    """Qwen3-Omni."""
    return hf.Qwen3OmniMoeProcessor(
        image_processor=hf.Qwen2VLImageProcessor(
            patch_size=16, min_pixels=4096, max_pixels=1 << 24
        ),
        video_processor=hf.Qwen2VLVideoProcessor(patch_size=16),
        feature_extractor=hf.WhisperFeatureExtractor(feature_size=128),
        tokenizer=tokenizer(
            "qwen3",
            image_token="<|image_pad|>",
            video_token="<|video_pad|>",
            audio_token="<|audio_pad|>",
            vision_bos_token="<|vision_start|>",
            vision_eos_token="<|vision_end|>",
            audio_bos_token="<|audio_start|>",
            audio_eos_token="<|audio_end|>",
        ),
        chat_template=chatml(
            "<|vision_start|><|image_pad|><|vision_end|>",
            "<|vision_start|><|video_pad|><|vision_end|>",
            "<|audio_start|><|audio_pad|><|audio_end|>",
        ),
    )
