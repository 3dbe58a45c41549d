"""Real processors of families that take pictures in ways of their own, built offline.

The tokenizers are those of Qwen2.5, Llama 3.2 or Gemma 3 plus the family's special tokens; the
templates are stand-ins, spelled as the published ones render, except LLaVA-NeXT's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import transformers as hf

from tests.assets import chat_template
from tests.omni_processors import _chatml, _tokenizer

CLIP = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
TILES = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]}
LLAVA: dict[str, Any] = {
    "patch_size": 14,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}


def _turns(user: str, assistant: str, prompt: str, image: str, start: str = "") -> str:
    """A stand-in: `{}` in `user` and `assistant` is where the content goes."""
    parts = (
        "{% for p in m.content %}{% if p.type == 'image' %}" + image + "{% else %}{{ p.text }}"
        "{% endif %}{% endfor %}"
    )
    return (
        start
        + "{% for m in messages %}{% if m.role == 'assistant' %}"
        + assistant.replace("{}", parts)
        + "{% else %}"
        + user.replace("{}", parts)
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}"
        + prompt
        + "{% endif %}"
    )


def llava() -> Any:
    """LLaVA 1.5, whose turns are plain words with a space behind each part, and have no end."""
    return hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(**CLIP),
        tokenizer=_tokenizer("qwen2_5", "<image>", "</s>"),
        chat_template=LLAVA_TEMPLATE,
        **LLAVA,
    )


LLAVA_TEMPLATE = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role | upper }}: {% endif %}"
    "{% for p in m.content if p.type == 'image' %}<image>\n{% endfor %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def llava_next() -> Any:
    """LLaVA-NeXT with its real template."""
    return hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(**CLIP, **TILES),
        tokenizer=_tokenizer("qwen2_5", "<image>", "<s>", "</s>", "[INST]", "[/INST]"),
        chat_template=chat_template("llava_next"),
        **LLAVA,
    )


def pixtral() -> Any:
    """Pixtral, whose user turn closes with the marker that opens the answer."""
    return hf.PixtralProcessor(
        image_processor=hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=16),
        tokenizer=_tokenizer(
            "qwen2_5", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "<s>", "</s>", "[INST]", "[/INST]"
        ),
        patch_size=16,
        chat_template=_turns("[INST]{}[/INST]", "{}</s>", "", "[IMG]", "<s>"),
    )


def internvl() -> Any:
    """InternVL."""
    return hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size={"height": 28, "width": 28}, crop_to_patches=True
        ),
        video_processor=hf.InternVLVideoProcessor(size={"height": 28, "width": 28}),
        tokenizer=_tokenizer(
            "qwen2_5",
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        ),
        image_seq_length=4,
        chat_template=_chatml("<IMG_CONTEXT>\n", "<video>\n", ""),
    )


def _glm(kind: Any, image_processor: Any, video_processor: Any) -> Any:
    return kind(
        image_processor=image_processor,
        video_processor=video_processor,
        tokenizer=_tokenizer(
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
        chat_template=_GLM,
    )


_GLM = (
    "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n"
    "<think></think>\n{% for p in m.content %}{{ p.text.strip() }}{% endfor %}"
    "{% else %}<|{{ m.role }}|>\n{% for p in m.content %}{% if p.type == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% elif p.type == 'video' %}"
    "<|begin_of_video|><|video|><|end_of_video|>{% else %}{{ p.text }}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>\n{% endif %}"
    "{% endif %}"
)


def glm4v() -> Any:
    """GLM-4.1V."""
    return _glm(hf.Glm4vProcessor, hf.Glm4vImageProcessor(), hf.Glm4vVideoProcessor())


def glm46v() -> Any:
    """GLM-4.6V."""
    return _glm(hf.Glm46VProcessor, hf.Glm46VImageProcessor(), hf.Glm46VVideoProcessor())


def llama4() -> Any:
    """Llama 4."""
    loaded = _tokenizer(
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
        chat_template=_turns(
            "<|header_start|>{{ m.role }}<|header_end|>\n\n{}<|eot|>",
            "<|header_start|>assistant<|header_end|>\n\n{}<|eot|>",
            "<|header_start|>assistant<|header_end|>\n\n",
            "<|image|>",
            "<|begin_of_text|>",
        ),
    )


_COHERE = _turns(
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
        tokenizer=_tokenizer(
            "qwen2_5",
            *_COHERE_TOKENS,
            boi_token="<|START_OF_IMG|>",
            eoi_token="<|END_OF_IMG|>",
            image_token="<|IMG_PATCH|>",
            img_line_break_token="<|IMG_LINE_BREAK|>",
        ),
        chat_template=_COHERE.replace("IMAGE", "<|IMG_PATCH|>"),
    )


def aya_vision() -> Any:
    """Aya Vision."""
    return hf.AyaVisionProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size={"height": 56, "width": 56}, crop_to_patches=True
        ),
        img_size=56,
        tokenizer=_tokenizer(
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
        chat_template=_COHERE.replace("IMAGE", "<image>"),
    )


def lfm2_vl() -> Any:
    """LFM2-VL."""
    return hf.Lfm2VlProcessor(
        image_processor=hf.Lfm2VlImageProcessor(),
        tokenizer=_tokenizer(
            "qwen2_5", "<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"
        ),
        chat_template=_chatml("<image>", "", ""),
    )


def molmo2() -> Any:
    """Molmo2."""
    return hf.Molmo2Processor(
        image_processor=hf.Molmo2ImageProcessor(),
        video_processor=hf.Molmo2VideoProcessor(),
        tokenizer=_tokenizer(
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
        chat_template=_chatml("<|image|>", "<|video|>", ""),
    )


def ovis2() -> Any:
    """Ovis 2."""
    return hf.Ovis2Processor(
        image_processor=hf.Ovis2ImageProcessor(
            size={"height": 28, "width": 28}, crop_to_patches=True
        ),
        tokenizer=_tokenizer("qwen2_5", "<image>"),
        image_seq_length=4,
        chat_template=_chatml("<image>\n", "", ""),
    )


def minimax_m3_vl() -> Any:
    """MiniMax-VL."""
    kind = hf.MiniMaxM3VLProcessor
    return kind(
        image_processor=hf.MiniMaxM3VLImageProcessor(),
        video_processor=hf.MiniMaxM3VLVideoProcessor(),
        tokenizer=_tokenizer("qwen2_5", kind.IMAGE_TOKEN, kind.VIDEO_TOKEN),
        chat_template=_chatml(kind.IMAGE_TOKEN, kind.VIDEO_TOKEN, ""),
    )


def step3p7() -> Any:
    """Step."""
    return hf.Step3p7Processor(
        image_processor=hf.Step3p7ImageProcessor(),
        tokenizer=_tokenizer(
            "qwen2_5",
            "<im_patch>",
            "<im_start>",
            "<im_end>",
            "<patch_start>",
            "<patch_end>",
            "<patch_newline>",
        ),
        chat_template=_chatml("<im_patch>", "", ""),
    )


def inkling() -> Any:
    """Inkling."""
    return hf.InklingProcessor(
        feature_extractor=hf.InklingFeatureExtractor(),
        image_processor=hf.InklingImageProcessor(),
        tokenizer=_tokenizer(
            "qwen2_5",
            "<|unused_200054|>",
            "<|unused_200053|>",
            "<|content_image|>",
            "<|content_audio_input|>",
        ),
        chat_template=_chatml(
            "<|content_image|><|unused_200054|>", "", "<|content_audio_input|><|unused_200053|>"
        ),
    )


@attrs.frozen
class More:
    """A family's processor and the token that ends its turns."""

    build: Callable[[], Any]
    stop: str
    options: dict[str, Any] = attrs.field(factory=dict)
    trims: bool = False
    before: str = ""


MORE: dict[str, More] = {
    "llava": More(llava, "</s>", {"stop_tokens": ["</s>"]}, before=" "),
    "llava_next": More(llava_next, "</s>", {"stop_tokens": ["</s>"]}, before=" "),
    "pixtral": More(pixtral, "</s>", {"stop_tokens": ["</s>"]}),
    "internvl": More(internvl, "<|im_end|>"),
    "glm4v": More(glm4v, "<|user|>", {"template_kwargs": {"enable_thinking": False}}, trims=True),
    "glm46v": More(glm46v, "<|user|>", {"template_kwargs": {"enable_thinking": False}}, trims=True),
    "llama4": More(llama4, "<|eot|>", {"stop_tokens": ["<|eot|>"]}),
    "cohere2_vision": More(
        cohere2_vision, "<|END_OF_TURN_TOKEN|>", {"stop_tokens": ["<|END_OF_TURN_TOKEN|>"]}
    ),
    "aya_vision": More(
        aya_vision, "<|END_OF_TURN_TOKEN|>", {"stop_tokens": ["<|END_OF_TURN_TOKEN|>"]}
    ),
    "lfm2_vl": More(lfm2_vl, "<|im_end|>"),
    "molmo2": More(molmo2, "<|im_end|>"),
    "ovis2": More(ovis2, "<|im_end|>"),
    "minimax_m3_vl": More(minimax_m3_vl, "<|im_end|>"),
    "step3p7": More(step3p7, "<|im_end|>"),
    "inkling": More(inkling, "<|im_end|>"),
}
