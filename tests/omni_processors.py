"""Real processors of the families that take video or audio, built offline.

The processor classes and their parts are the real ones. The tokenizers are those of the language
models that the families grew from, plus their special tokens; the templates are stand-ins, spelled
as the published ones render, except Gemma 4's, which is real.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    Gemma3nAudioFeatureExtractor,
    Gemma3nProcessor,
    Gemma4AudioFeatureExtractor,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    Kimi_K25ImageProcessor,
    Kimi_K25Processor,
    Kimi_K25VideoProcessor,
    MllamaImageProcessor,
    MllamaProcessor,
    PaliGemmaProcessor,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalImageProcessor,
    Phi4MultimodalProcessor,
    Qwen2_5OmniProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3OmniMoeProcessor,
    SiglipImageProcessor,
    WhisperFeatureExtractor,
)

from tests.assets import chat_template, tokenizer_dir

_PARTS = (
    "{{% for p in m.content %}}{{% if p.type == 'image' %}}{image}"
    "{{% elif p.type == 'video' %}}{video}{{% elif p.type == 'audio' %}}{audio}"
    "{{% else %}}{{{{ p.text }}}}{{% endif %}}{{% endfor %}}"
)


def _chatml(image: str, video: str, audio: str) -> str:
    """A stand-in of the chatml templates."""
    parts = _PARTS.format(image=image, video=video, audio=audio)
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n" + parts + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _tokenizer(name: str, *tokens: str, **named: str) -> Any:
    """A real tokenizer with special tokens added, some of them under a name."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer_dir(name), extra_special_tokens=named)
    loaded.add_special_tokens({"additional_special_tokens": [*tokens, *named.values()]})
    return loaded


def qwen2_5_omni() -> Any:
    """Qwen2.5-Omni."""
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=WhisperFeatureExtractor(feature_size=128, chunk_length=30),
        tokenizer=_tokenizer(
            "qwen2_5",
            image_token="<|IMAGE|>",
            video_token="<|VIDEO|>",
            audio_token="<|AUDIO|>",
            vision_bos_token="<|vision_bos|>",
            vision_eos_token="<|vision_eos|>",
            audio_bos_token="<|audio_bos|>",
            audio_eos_token="<|audio_eos|>",
        ),
        chat_template=_chatml(
            "<|vision_bos|><|IMAGE|><|vision_eos|>",
            "<|vision_bos|><|VIDEO|><|vision_eos|>",
            "<|audio_bos|><|AUDIO|><|audio_eos|>",
        ),
    )


def qwen3_omni() -> Any:
    """Qwen3-Omni."""
    return Qwen3OmniMoeProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, min_pixels=4096, max_pixels=1 << 24),
        video_processor=Qwen2VLVideoProcessor(patch_size=16),
        feature_extractor=WhisperFeatureExtractor(feature_size=128),
        tokenizer=_tokenizer(
            "qwen3",
            image_token="<|image_pad|>",
            video_token="<|video_pad|>",
            audio_token="<|audio_pad|>",
            vision_bos_token="<|vision_start|>",
            vision_eos_token="<|vision_end|>",
            audio_bos_token="<|audio_start|>",
            audio_eos_token="<|audio_end|>",
        ),
        chat_template=_chatml(
            "<|vision_start|><|image_pad|><|vision_end|>",
            "<|vision_start|><|video_pad|><|vision_end|>",
            "<|audio_start|><|audio_pad|><|audio_end|>",
        ),
    )


def gemma3n() -> Any:
    """Gemma 3n, with fewer tokens an image and a sound than its checkpoints."""
    parts = _PARTS.format(image="<image_soft_token>", video="", audio="<audio_soft_token>")
    return Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=_tokenizer(
            "gemma3",
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
    return Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(max_soft_tokens=70),
        video_processor=Gemma4VideoProcessor(max_soft_tokens=70),
        tokenizer=_tokenizer(
            "gemma3",
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


def kimi_k25() -> Any:
    """Kimi K2.5."""
    parts = _PARTS.format(
        image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n",
        video="<|kimi_k25_video_placeholder|>\n",
        audio="",
    )
    return Kimi_K25Processor(
        image_processor=Kimi_K25ImageProcessor(),
        video_processor=Kimi_K25VideoProcessor(),
        tokenizer=_tokenizer(
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


def phi4_multimodal() -> Any:
    """Phi-4-multimodal."""
    parts = _PARTS.format(image="<|image|>", video="", audio="<|audio|>")
    return Phi4MultimodalProcessor(
        image_processor=Phi4MultimodalImageProcessor(),
        audio_processor=Phi4MultimodalFeatureExtractor(),
        tokenizer=_tokenizer(
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


def mllama() -> Any:
    """Llama 3.2 Vision."""
    parts = _PARTS.format(image="<|image|>", video="", audio="")
    loaded = _tokenizer("llama3_2", "<|image|>")
    loaded.pad_token = "<|finetune_right_pad_id|>"
    return MllamaProcessor(
        image_processor=MllamaImageProcessor(size={"height": 56, "width": 56}, max_image_tiles=4),
        tokenizer=loaded,
        chat_template=(
            "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}"
            "<|end_header_id|>\n\n" + parts + "<|eot_id|>{% endfor %}"
            "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
            "{% endif %}"
        ),
    )


def paligemma() -> Any:
    """PaliGemma, with fewer tokens an image than its checkpoints; it has no chat template."""
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    return PaliGemmaProcessor(
        image_processor=images, tokenizer=_tokenizer("gemma3", image_token="<image>")
    )


def nemotron_omni() -> Any:
    """Nemotron Omni."""
    from transformers import (
        NemotronH_Omni_Reasoning_V3ImageProcessor,
        NemotronH_Omni_Reasoning_V3Processor,
        NemotronH_Omni_Reasoning_V3VideoProcessor,
        ParakeetFeatureExtractor,
    )

    return NemotronH_Omni_Reasoning_V3Processor(
        image_processor=NemotronH_Omni_Reasoning_V3ImageProcessor(),
        video_processor=NemotronH_Omni_Reasoning_V3VideoProcessor(
            norm_mean=[0.5] * 3, norm_std=[0.5] * 3
        ),
        feature_extractor=ParakeetFeatureExtractor(),
        tokenizer=_tokenizer(
            "qwen2_5",
            "<image>",
            "<video>",
            "<img>",
            "</img>",
            "<so_embedding>",
            "<so_start>",
            "<so_end>",
        ),
        chat_template=_chatml("<image>", "<video>", "<so_embedding>"),
    )
