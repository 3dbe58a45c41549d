"""Processors of real parts with a stand-in of their chat template, or without one.

The stand-in is chatml with the processor's own placeholders, on Qwen2.5's tokenizer with the
special tokens that processors read, under the names that they use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import transformers as hf

from tests.processors.template_stand_ins import chatml
from tests.processors.tokenizers import tokenizer

_NAMES = {
    "image_token": "<image>",
    "video_token": "<video>",
    "audio_token": "<audio>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "eof_token": "<eof>",
    "image_wrapper_token": "<image_wrapper>",
    "image_boundary_token": "<image_boundary>",
    "image_start_token": "<image_start>",
    "image_end_token": "<image_end>",
    "image_break_token": "<image_break>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "video_start_token": "<video_start>",
    "video_end_token": "<video_end>",
    "vision_start_token": "<vision_start>",
    "vision_end_token": "<vision_end>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "audio_bos_token": "<audio_bos>",
    "audio_eos_token": "<audio_eos>",
    "eol_token": "<eol>",
    "boa_token": "<boa>",
    "eoa_token": "<eoa>",
}
_SPELLED = (
    "<|IMAGE_PAD|>",
    "<|VIDEO_PAD|>",
    "<|VISION_START|>",
    "<|VISION_END|>",
    "<imgpad>",
    "<|imgpad|>",
    "<|audio_comp_pad|>",
    "<|audio_pad|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<sound>",
    "<|pad|>",
    "<|AUDIO|>",
    "<|AUDIO_DURATION|>",
    "<|video_duration|>",
    "|SPEAKER|",
    "|NEWLINE|",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
    "<|audio|>",
    "<|patch|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|vid_start|>",
    "<|vid_end|>",
    "<|vid_frame_separator|>",
)
KINDS = ("image", "video", "audio")
_PARTS = ("image_processor", "video_processor", "feature_extractor")


def stand_in(
    name: str,
    *parts: Any,
    template: tuple[str, str, str] | None = None,
    names: Mapping[str, str] | None = None,
    **options: Any,
) -> Any:
    """Builds a processor of real parts with a stand-in of its chat template.

    Args:
        name: The class.
        *parts: Its image processor, video processor and feature extractor.
        template: The text of an image, a video and an audio clip in its template; by default the
            placeholder alone.
        names: Names of special tokens that differ from the usual.
        **options: Options of the class.
    """
    processor = _built(name, parts, _words(**(names or {})), options)
    spelled = (getattr(processor, f"{kind}_token", None) or "" for kind in KINDS)
    processor.chat_template = chatml(*(template or spelled))
    return processor


def without_template(name: str, *parts: Any, **options: Any) -> Any:
    """Builds the processor of a model that has no chat template."""
    return _built(name, parts, _plain_words(), options)


def _built(name: str, parts: Sequence[Any], tokenizer: Any, options: Mapping[str, Any]) -> Any:
    kind = getattr(hf, name)
    tokenizers = [part for part in kind.get_attributes() if part.endswith("tokenizer")]
    given = {_role(part): part for part in parts}
    return kind(**given, **dict.fromkeys(tokenizers, tokenizer), **options)


def _role(part: Any) -> str:
    words = type(part).__name__.lower()
    return next(role for role in _PARTS if role.replace("_", "") in words)


@lru_cache
def _words(**names: str) -> Any:
    """Returns the tokenizer of the stand-ins, loaded once, since loading is slow."""
    return tokenizer("qwen2_5", *_SPELLED, **{**_NAMES, **names})


@lru_cache
def _plain_words() -> Any:
    """Returns another tokenizer for processors that add thousands of tokens to it."""
    loaded = tokenizer("qwen2_5", *_SPELLED, **_NAMES)
    loaded.chat_template = None
    return loaded
