"""Idefics 3 and SmolVLM, with published templates on Llama 3's vocabulary.

No registry has their tokenizer, so theirs is that of the language model that they grew from plus
their special tokens. Their tiles are smaller than the checkpoints'.
"""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.assets import chat_template
from tests.processors.tokenizers import tokenizer


def _idefics_tokenizer() -> Any:
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<end_of_utterance>"]
    loaded = tokenizer("llama3_2", *marks, "<|im_start|>", *tiles)
    loaded.pad_token = "<|finetune_right_pad_id|>"
    loaded.padding_side = "left"
    return loaded


def idefics3() -> Any:
    """Idefics 3, with smaller tiles than its checkpoints."""
    return hf.Idefics3Processor(
        image_processor=hf.Idefics3ImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=_idefics_tokenizer(),
        image_seq_len=4,
        chat_template=chat_template("idefics3"),
    )


def smolvlm() -> Any:
    """SmolVLM, with smaller tiles than its checkpoints."""
    return hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        video_processor=hf.SmolVLMVideoProcessor(),
        tokenizer=_idefics_tokenizer(),
        image_seq_len=4,
        chat_template=chat_template("smolvlm"),
    )
