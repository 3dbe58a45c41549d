"""Command A Vision and Aya Vision, with a stand-in template on Qwen2.5's vocabulary."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.processors.template_stand_ins import turns
from tests.processors.tokenizers import tokenizer

_COHERE_STAND_IN = turns(
    "<|START_OF_TURN_TOKEN|><|{{ m.role | upper }}_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{}<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "IMAGE",
)
_COHERE_TOKENS = (
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)


def cohere2_vision() -> Any:
    """Command A Vision."""
    return hf.Cohere2VisionProcessor(
        image_processor=hf.Cohere2VisionImageProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer(
            "qwen2_5",
            *_COHERE_TOKENS,
            boi_token="<|START_OF_IMG|>",
            eoi_token="<|END_OF_IMG|>",
            image_token="<|IMG_PATCH|>",
            img_line_break_token="<|IMG_LINE_BREAK|>",
        ),
        chat_template=_COHERE_STAND_IN.replace("IMAGE", "<|IMG_PATCH|>"),
    )


def aya_vision() -> Any:
    """Aya Vision."""
    return hf.AyaVisionProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size={"height": 56, "width": 56}, crop_to_patches=True
        ),
        img_size=56,
        tokenizer=tokenizer(
            "qwen2_5",
            *_COHERE_TOKENS,
            "<image>",
            "<|START_OF_IMG|>",
            "<|END_OF_IMG|>",
            "<|IMG_PATCH|>",
            "<|IMG_LINE_BREAK|>",
            "TILE",
            "TILE_GLOBAL",
        ),
        chat_template=_COHERE_STAND_IN.replace("IMAGE", "<image>"),
    )
