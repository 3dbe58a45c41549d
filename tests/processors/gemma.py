"""Gemma 3, 3n and 4, and PaliGemma; the templates of Gemma 3 and 4 are published ones.

Images and audio take fewer tokens than with the checkpoints, so that tests are fast. The tokenizer
is Gemma 3's without the 6,242 added tokens that no text contains; `gemma3_whole` has all of it.
"""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.assets import chat_template
from tests.processors.template_stand_ins import PARTS
from tests.processors.tokenizers import tokenizer


def gemma3() -> Any:
    """Gemma 3."""
    return _gemma3("gemma3_without_unused")


def gemma3_whole() -> Any:
    """Gemma 3 with its whole tokenizer, which makes every example five times slower."""
    return _gemma3("gemma3")


def _gemma3(vocabulary: str) -> Any:
    return hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer(vocabulary),
        chat_template=chat_template("gemma3"),
        image_seq_length=4,
    )


def gemma3n() -> Any:
    """Gemma 3n."""
    parts = PARTS.format(image="<image_soft_token>", video="", audio="<audio_soft_token>")
    return hf.Gemma3nProcessor(
        feature_extractor=hf.Gemma3nAudioFeatureExtractor(),
        image_processor=hf.SiglipImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer(
            "gemma3_without_unused",
            image_token="<image_soft_token>",
            boi_token="<start_of_image>",
            eoi_token="<end_of_image>",
            audio_token="<audio_soft_token>",
            boa_token="<start_of_audio>",
            eoa_token="<end_of_audio>",
        ),
        audio_seq_length=8,
        image_seq_length=4,
        chat_template=(
            "{{ bos_token }}{% for m in messages %}<start_of_turn>"
            "{{ 'model' if m.role == 'assistant' else m.role }}\n" + parts + "<end_of_turn>\n"
            "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
        ),
    )


def gemma4() -> Any:
    """Gemma 4, on Gemma 3's vocabulary."""
    return hf.Gemma4Processor(
        feature_extractor=hf.Gemma4AudioFeatureExtractor(),
        image_processor=hf.Gemma4ImageProcessor(max_soft_tokens=70),
        video_processor=hf.Gemma4VideoProcessor(max_soft_tokens=70),
        tokenizer=tokenizer(
            "gemma3_without_unused",
            "<|turn>",
            "<turn|>",
            "<|channel>",
            "<channel|>",
            "<|think|>",
            "<|tool>",
            "<tool|>",
            "<|tool_call>",
            "<tool_call|>",
            "<|tool_response>",
            "<tool_response|>",
            '<|"|>',
            image_token="<|image|>",
            boi_token="<|image>",
            eoi_token="<image|>",
            audio_token="<|audio|>",
            boa_token="<|audio>",
            eoa_token="<audio|>",
        ),
        chat_template=chat_template("gemma4"),
    )


def gemma4_unified() -> Any:
    """Gemma 4 Unified, with a stand-in of its template: Gemma 4's."""
    like = gemma4()
    return hf.Gemma4UnifiedProcessor(
        feature_extractor=hf.Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=hf.Gemma4UnifiedImageProcessor(),
        video_processor=hf.Gemma4UnifiedVideoProcessor(),
        tokenizer=like.tokenizer,
        chat_template=like.chat_template,
    )


def paligemma() -> Any:
    """PaliGemma, which has no chat template."""
    images = hf.SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    return hf.PaliGemmaProcessor(
        image_processor=images, tokenizer=tokenizer("gemma3_without_unused", image_token="<image>")
    )
