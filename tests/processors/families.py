"""Real processors of every family, built offline from real parts.

The processor classes, image processors and chat templates are the real ones, and so are the
tokenizers of the Qwen families and Gemma. SmolVLM, Idefics 3 and LLaVA-OneVision have no tokenizer
in a registry, so theirs is that of the language model they grew from (Llama 3, Qwen2.5) plus their
special tokens; LLaVA-OneVision's template is a stand-in, spelled as its published one renders.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import attrs
from transformers import (
    AutoTokenizer,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tests.assets import chat_template, tokenizer_dir

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


@attrs.frozen(kw_only=True)
class Family:
    """What the tests know of a family, independently of its collator.

    Attributes:
        build: Makes the processor.
        stop: The token that ends a turn.
        before: What stands between the generation prompt and the words of an answer.
        trims: Whether the template trims what a message says.
        image_token: The token that stands for one image feature.
        pixels: The side of a picture small enough to be cheap.
    """

    build: Callable[[], Any]
    stop: str
    before: str = ""
    trims: bool = False
    image_token: str


def tokenizer(name: str, *extra: str) -> Any:
    """A real tokenizer, with special tokens added."""
    loaded = AutoTokenizer.from_pretrained(tokenizer_dir(name))
    if extra:
        loaded.add_special_tokens({"additional_special_tokens": list(extra)})
    return loaded


def qwen2_vl() -> Any:
    """Qwen2-VL; its template is Qwen2.5-VL's to the letter."""
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        tokenizer=tokenizer("qwen2_5"),
        chat_template=chat_template("qwen2_5_vl"),
    )


def qwen2_5_vl() -> Any:
    """Qwen2.5-VL."""
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        tokenizer=tokenizer("qwen2_5"),
        chat_template=chat_template("qwen2_5_vl"),
    )


def qwen3_vl(template: str = "qwen3_vl") -> Any:
    """Qwen3-VL, and Qwen3.5 with another template."""
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, min_pixels=4096, max_pixels=1 << 24),
        video_processor=Qwen3VLVideoProcessor(),
        tokenizer=tokenizer("qwen3"),
        chat_template=chat_template(template),
    )


def gemma3() -> Any:
    """Gemma 3, with fewer tokens an image than its checkpoints, so that tests are cheap."""
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer("gemma3"),
        chat_template=chat_template("gemma3"),
        image_seq_length=4,
    )


def _idefics_tokenizer() -> Any:
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
    loaded = tokenizer("llama3_2", *marks, "<|im_start|>", *tiles)
    loaded.pad_token = "<|finetune_right_pad_id|>"
    loaded.padding_side = "left"
    return loaded


def smolvlm() -> Any:
    """SmolVLM, with smaller tiles than its checkpoints."""
    return SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        video_processor=SmolVLMVideoProcessor(),
        tokenizer=_idefics_tokenizer(),
        image_seq_len=4,
        chat_template=chat_template("smolvlm"),
    )


def idefics3() -> Any:
    """Idefics 3, with smaller tiles than its checkpoints."""
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=_idefics_tokenizer(),
        image_seq_len=4,
        chat_template=chat_template("idefics3"),
    )


def llava_onevision() -> Any:
    """LLaVA-OneVision, with smaller tiles than its checkpoints."""
    grid = [[28, 28], [28, 56], [56, 28], [56, 56]]
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size={"height": 28, "width": 28}, image_grid_pinpoints=grid
        ),
        video_processor=LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=tokenizer("qwen2_5", "<image>", "<video>"),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_ONEVISION_STAND_IN,
    )


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(build=qwen2_vl, stop="<|im_end|>", image_token="<|image_pad|>"),
    "qwen2_5_vl": Family(build=qwen2_5_vl, stop="<|im_end|>", image_token="<|image_pad|>"),
    "qwen3_vl": Family(build=qwen3_vl, stop="<|im_end|>", image_token="<|image_pad|>"),
    "qwen3_5": Family(
        build=lambda: qwen3_vl("qwen3_5_nothink"),
        stop="<|im_end|>",
        trims=True,
        image_token="<|image_pad|>",
    ),
    "gemma3": Family(
        build=gemma3, stop="<end_of_turn>", trims=True, image_token="<image_soft_token>"
    ),
    "smolvlm": Family(build=smolvlm, stop="<end_of_utterance>", before=" ", image_token="<image>"),
    "idefics3": Family(
        build=idefics3, stop="<end_of_utterance>", before=" ", image_token="<image>"
    ),
    "llava_onevision": Family(build=llava_onevision, stop="<|im_end|>", image_token="<image>"),
}


@lru_cache
def processor_of(name: str) -> Any:
    """A family's processor, built once a test run; tests must not change it."""
    return FAMILIES[name].build()
