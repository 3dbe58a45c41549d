"""GLM-4.1V and GLM-4.6V, with a stand-in template on Qwen2.5's vocabulary."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.processors.tokenizers import tokenizer

_GLM_STAND_IN = (
    "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n"
    "<think></think>\n{% for p in m.content %}{{ p.text.strip() }}{% endfor %}"
    "{% else %}<|{{ m.role }}|>\n{% for p in m.content %}{% if p.type == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% elif p.type == 'video' %}"
    "<|begin_of_video|><|video|><|end_of_video|>{% else %}{{ p.text }}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>\n{% endif %}"
    "{% endif %}"
)


def _glm(kind: Any, image_processor: Any, video_processor: Any) -> Any:
    return kind(
        image_processor=image_processor,
        video_processor=video_processor,
        tokenizer=tokenizer(
            "qwen2_5",
            "[gMASK]",
            "<sop>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|observation|>",
            "<think>",
            "</think>",
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            image_token="<|image|>",
            video_token="<|video|>",
        ),
        chat_template=_GLM_STAND_IN,
    )


def glm4v() -> Any:
    """GLM-4.1V."""
    return _glm(hf.Glm4vProcessor, hf.Glm4vImageProcessor(), hf.Glm4vVideoProcessor())


def glm46v() -> Any:
    """GLM-4.6V."""
    return _glm(hf.Glm46VProcessor, hf.Glm46VImageProcessor(), hf.Glm46VVideoProcessor())
