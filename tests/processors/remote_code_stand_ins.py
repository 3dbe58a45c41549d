"""Stand-ins for processors whose code lives on a model hub, with its signatures and outputs.

The image processors, feature extractors and tokenizers behind them are real ones of transformers.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from transformers import Kimi_K25Processor, Phi4MultimodalProcessor, SiglipImageProcessor

from tests.processors.other_families import kimi_k25, phi4_multimodal
from tests.processors.qwen import qwen2_5_vl
from tests.processors.tokenizers import tokenizer

PHI4_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@attrs.define
class KimiVLImages:
    """Kimi-VL's image processor: grids of height and width."""

    real: Any
    merge_kernel_size: tuple[int, int] = (2, 2)

    def __call__(self, images: Any, return_tensors: str) -> dict[str, Any]:
        output = self.real(images=images, return_tensors=return_tensors)
        return {
            "pixel_values": output["pixel_values"],
            "image_grid_hws": output["image_grid_thw"][:, 1:],
        }


class KimiVLProcessor(Kimi_K25Processor):  # type: ignore[misc]  # Any to mypy
    """A stand-in for Kimi-VL's: its image processor is all that differs."""


class KimiK25Processor(Kimi_K25Processor):  # type: ignore[misc]  # Any to mypy
    """A stand-in for Kimi K2.5's remote code: `medias` in, one placeholder an image out."""

    def __call__(
        self,
        messages: Any = None,
        medias: Any = None,
        text: str | None = None,
        return_tensors: str = "pt",
    ) -> dict[str, Any]:
        images = [media["image"] for media in medias]
        output = self.image_processor(images=images, return_tensors=return_tensors)
        return {
            **self.tokenizer(text, return_tensors=return_tensors),
            "pixel_values": output["pixel_values"],
            "grid_thws": output["image_grid_thw"],
        }


class Phi4MMProcessor(Phi4MultimodalProcessor):  # type: ignore[misc]  # Any to mypy
    """A stand-in for Phi-4-multimodal's remote code: numbered placeholders, its own key names."""

    def __call__(
        self,
        text: str,
        images: Any = None,
        audios: Any = None,
        return_tensors: str = "pt",
    ) -> dict[str, Any]:
        none = torch.tensor([])
        keys = ("input_image_embeds", "image_sizes", "image_attention_mask")
        output: dict[str, Any] = dict.fromkeys(
            (*keys, "input_audio_embeds", "audio_embed_sizes"), none
        )
        if images:
            found = self.image_processor(images, return_tensors=return_tensors)
            names = ("image_pixel_values", "image_sizes", "image_attention_mask")
            output |= {key: found[name] for key, name in zip(keys, names, strict=True)}
            text = text.replace("<|image_1|>", "<|endoftext10|>" * int(found["num_img_tokens"][0]))
        if audios:
            ((array, rate),) = audios
            found = self.audio_processor(array, sampling_rate=rate, return_tensors=return_tensors)
            output["input_audio_embeds"] = found["audio_input_features"]
            output["audio_embed_sizes"] = found["audio_embed_sizes"]
            text = text.replace(
                "<|audio_1|>", "<|endoftext11|>" * int(found["audio_embed_sizes"][0])
            )
        output["input_mode"] = torch.tensor([bool(images) + 2 * bool(audios)])
        return {**self.tokenizer(text, return_tensors=return_tensors), **output}


@attrs.define
class NemotronParseProcessor:
    """A stand-in for Nemotron-Parse's: the parts that are used."""

    image_processor: Any
    tokenizer: Any


def _as(kind: type, real: Any) -> Any:
    real.__class__ = kind
    return real


def kimi_vl_stand_in() -> Any:
    """Kimi-VL."""
    processor = _as(KimiVLProcessor, kimi_k25())
    processor.image_processor = KimiVLImages(processor.image_processor)
    return processor


def kimi_k25_remote_stand_in() -> Any:
    """Kimi K2.5 of the remote code."""
    return _as(KimiK25Processor, kimi_k25())


def phi4mm_stand_in() -> Any:
    """Phi-4-multimodal of the remote code."""
    processor = _as(Phi4MMProcessor, phi4_multimodal())
    processor.tokenizer = tokenizer(
        "qwen2_5",
        "<|user|>",
        "<|assistant|>",
        "<|system|>",
        "<|end|>",
        "<|endoftext10|>",
        "<|endoftext11|>",
    )
    processor.chat_template = PHI4_TEMPLATE
    return processor


def nemotron_parse_stand_in() -> Any:
    """Nemotron-Parse."""
    words = tokenizer(
        "qwen2_5", "<s>", "</s>", "<predict_bbox>", "<predict_classes>", "<output_markdown>"
    )
    words.bos_token, words.eos_token = "<s>", "</s>"
    return NemotronParseProcessor(SiglipImageProcessor(size={"height": 28, "width": 28}), words)


def llava_onevision_1_5_stand_in() -> Any:
    """A stand-in for LLaVA-OneVision-1.5's: its model card calls it as it calls Qwen2.5-VL's.

    That is with `text`, `images` and `videos` as `qwen_vl_utils.process_vision_info` gives them, so
    Qwen2.5-VL's own class stands here, with fewer pixels than the checkpoints allow.
    """
    processor = qwen2_5_vl()
    processor.image_processor.size = {"shortest_edge": 4 * 784, "longest_edge": 64 * 784}
    return processor
