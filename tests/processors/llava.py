"""The LLaVA family and Pixtral; all templates but LLaVA-NeXT's are stand-ins."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.assets import chat_template
from tests.processors.template_stand_ins import turns
from tests.processors.tokenizers import tokenizer

CLIP = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
TILES = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}
LLAVA: dict[str, Any] = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
LLAVA_ONEVISION_STAND_IN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{% for part in m.content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in m.content if part.type == 'video' %}<video>{% endfor %}"
    "{% for part in m.content if part.type == 'text' %}"
    "{% if m.role == 'assistant' %}"
    "{% generation %}{{ '\n' + part.text }}{% endgeneration %}"
    "{% else %}{{ '\n' + part.text }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAVA_STAND_IN = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role | upper }}: {% endif %}"
    "{% for p in m.content if p.type == 'image' %}<image>\n{% endfor %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def llava() -> Any:
    """LLaVA 1.5, whose turns are plain words with a space behind each part, and have no end."""
    return hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(**CLIP),
        tokenizer=tokenizer("qwen2_5", "<image>", "</s>"),
        chat_template=LLAVA_STAND_IN,
        **LLAVA,
    )


def llava_next() -> Any:
    """LLaVA-NeXT with its real template."""
    return hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(**CLIP, **TILES),
        tokenizer=tokenizer("qwen2_5", "<image>", "<s>", "</s>", "[INST]", "[/INST]"),
        chat_template=chat_template("llava_next"),
        **LLAVA,
    )


def llava_onevision() -> Any:
    """LLaVA-OneVision, with smaller tiles than its checkpoints."""
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    return hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(
            size={"height": 28, "width": 28}, image_grid_pinpoints=grid
        ),
        video_processor=hf.LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer("qwen2_5", "<image>", "<video>"),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_ONEVISION_STAND_IN,
    )


def pixtral() -> Any:
    """Pixtral, whose user turn closes with the marker that opens the answer."""
    return hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=16),
        tokenizer=tokenizer(
            "qwen2_5", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<s>", "</s>", "[INST]", "[/INST]"
        ),
        patch_size=16,
        chat_template=turns("[INST]{}[/INST]", "{}</s>", "", "[IMG]", "<s>"),
    )
