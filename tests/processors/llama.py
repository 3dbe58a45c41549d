"""Llama 3.2 Vision and Llama 4, with stand-in templates on Llama 3.2's vocabulary."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.processors.template_stand_ins import PARTS, turns
from tests.processors.tokenizers import tokenizer


def mllama() -> Any:
    """Llama 3.2 Vision."""
    parts = PARTS.format(image="<|image|>", video="", audio="")
    loaded = tokenizer("llama3_2", "<|image|>")
    loaded.pad_token = "<|finetune_right_pad_id|>"
    return hf.MllamaProcessor(
        image_processor=hf.MllamaImageProcessor(
            size={"height": 56, "width": 56}, max_image_tiles=4
        ),
        tokenizer=loaded,
        chat_template=(
            "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}"
            "<|end_header_id|>\n\n" + parts + "<|eot_id|>{% endfor %}"
            "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
            "{% endif %}"
        ),
    )


def llama4() -> Any:
    """Llama 4."""
    loaded = tokenizer(
        "llama3_2",
        "<|header_start|>",
        "<|header_end|>",
        "<|eot|>",
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|patch|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    )
    loaded.pad_token = "<|finetune_right_pad_id|>"
    return hf.Llama4Processor(
        image_processor=hf.Llama4ImageProcessor(size={"height": 28, "width": 28}, max_patches=4),
        tokenizer=loaded,
        chat_template=turns(
            "<|header_start|>{{ m.role }}<|header_end|>\n\n{}<|eot|>",
            "<|header_start|>assistant<|header_end|>\n\n{}<|eot|>",
            "<|header_start|>assistant<|header_end|>\n\n",
            "<|image|>",
            "<|begin_of_text|>",
        ),
    )
