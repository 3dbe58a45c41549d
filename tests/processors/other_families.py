"""Families with one processor each; templates and vocabularies are stand-ins."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.processors.template_stand_ins import PARTS, chatml
from tests.processors.tokenizers import tokenizer


def inkling() -> Any:
    """Inkling."""
    return hf.InklingProcessor(
        feature_extractor=hf.InklingFeatureExtractor(),
        image_processor=hf.InklingImageProcessor(),
        tokenizer=tokenizer(
            "qwen2_5",
            "<|unused_200054|>",
            "<|unused_200053|>",
            "<|content_image|>",
            "<|content_audio_input|>",
        ),
        chat_template=chatml(
            "<|content_image|><|unused_200054|>", "", "<|content_audio_input|><|unused_200053|>"
        ),
    )


def internvl() -> Any:
    """InternVL."""
    return hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size={"height": 28, "width": 28}, crop_to_patches=True
        ),
        video_processor=hf.InternVLVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer(
            "qwen2_5",
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        ),
        image_seq_length=4,
        chat_template=chatml("<IMG_CONTEXT>\n", "<video>\n", ""),
    )


def lfm2_vl() -> Any:
    """LFM2-VL."""
    return hf.Lfm2VlProcessor(
        image_processor=hf.Lfm2VlImageProcessor(),
        tokenizer=tokenizer(
            "qwen2_5", "<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"
        ),
        chat_template=chatml("<image>", "", ""),
    )


def minimax_m3_vl() -> Any:
    """MiniMax-VL."""
    kind = hf.MiniMaxM3VLProcessor
    return kind(
        image_processor=hf.MiniMaxM3VLImageProcessor(),
        video_processor=hf.MiniMaxM3VLVideoProcessor(),
        tokenizer=tokenizer("qwen2_5", kind.IMAGE_TOKEN, kind.VIDEO_TOKEN),
        chat_template=chatml(kind.IMAGE_TOKEN, kind.VIDEO_TOKEN, ""),
    )


def molmo2() -> Any:
    """Molmo2."""
    return hf.Molmo2Processor(
        image_processor=hf.Molmo2ImageProcessor(),
        video_processor=hf.Molmo2VideoProcessor(),
        tokenizer=tokenizer(
            "qwen2_5",
            "<im_patch>",
            "<im_col>",
            "<im_start>",
            "<low_res_im_start>",
            "<frame_start>",
            "<im_end>",
            "<frame_end>",
            "<im_low>",
            "<|image|>",
            "<|video|>",
        ),
        chat_template=chatml("<|image|>", "<|video|>", ""),
    )


def ovis2() -> Any:
    """Ovis 2."""
    return hf.Ovis2Processor(
        image_processor=hf.Ovis2ImageProcessor(
            size={"height": 28, "width": 28}, crop_to_patches=True
        ),
        tokenizer=tokenizer("qwen2_5", "<image>"),
        image_seq_length=4,
        chat_template=chatml("<image>\n", "", ""),
    )


def step3p7() -> Any:
    """Step."""
    return hf.Step3p7Processor(
        image_processor=hf.Step3p7ImageProcessor(),
        tokenizer=tokenizer(
            "qwen2_5",
            "<im_patch>",
            "<im_start>",
            "<im_end>",
            "<patch_start>",
            "<patch_end>",
            "<patch_newline>",
        ),
        chat_template=chatml("<im_patch>", "", ""),
    )


def kimi_k25() -> Any:
    """Kimi K2.5."""
    parts = PARTS.format(
        image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n",
        video="<|kimi_k25_video_placeholder|>\n",
        audio="",
    )
    return hf.Kimi_K25Processor(
        image_processor=hf.Kimi_K25ImageProcessor(),
        video_processor=hf.Kimi_K25VideoProcessor(),
        tokenizer=tokenizer(
            "qwen2_5",
            "<|im_user|>",
            "<|im_assistant|>",
            "<|im_system|>",
            "<|im_middle|>",
            "<|media_begin|>",
            "<|media_content|>",
            "<|media_end|>",
            "<|media_pad|>",
            "<|kimi_k25_video_placeholder|>",
            "<think>",
            "</think>",
        ),
        chat_template=(
            "{% for m in messages %}<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>"
            "{% if m.role == 'assistant' %}<think></think>{% endif %}" + parts + "<|im_end|>"
            "{% endfor %}{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>"
            "{% if thinking is defined and thinking %}<think>{% else %}<think></think>{% endif %}"
            "{% endif %}"
        ),
    )


def nemotron_omni() -> Any:
    """Nemotron Omni."""
    return hf.NemotronH_Omni_Reasoning_V3Processor(
        image_processor=hf.NemotronH_Omni_Reasoning_V3ImageProcessor(),
        video_processor=hf.NemotronH_Omni_Reasoning_V3VideoProcessor(
            norm_mean=[0.5] * 3, norm_std=[0.5] * 3
        ),
        feature_extractor=hf.ParakeetFeatureExtractor(),
        tokenizer=tokenizer(
            "qwen2_5",
            "<image>",
            "<video>",
            "<img>",
            "</img>",
            "<so_embedding>",
            "<so_start>",
            "<so_end>",
        ),
        chat_template=chatml("<image>", "<video>", "<so_embedding>"),
    )


def phi4_multimodal() -> Any:
    """Phi-4-multimodal."""
    parts = PARTS.format(image="<|image|>", video="", audio="<|audio|>")
    return hf.Phi4MultimodalProcessor(
        image_processor=hf.Phi4MultimodalImageProcessor(),
        audio_processor=hf.Phi4MultimodalFeatureExtractor(),
        tokenizer=tokenizer(
            "qwen2_5",
            "<|user|>",
            "<|assistant|>",
            "<|system|>",
            "<|end|>",
            image_token="<|image|>",
            audio_token="<|audio|>",
        ),
        chat_template=(
            "{% for m in messages %}<|{{ m.role }}|>" + parts + "<|end|>{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>{% endif %}"
        ),
    )
