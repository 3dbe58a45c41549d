"""Qwen3-VL's processor with a published chat template of another model."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tests.assets import chat_template, chat_templates
from tests.processors import build

_CONTROL = re.compile(r"<\|?[\w▁｜/]+\|?>|<｜[^｜>]*｜>|\[/?[A-Z_]+\]")


@cache
def processor_with(template: str, asset: str = "") -> Any:
    """Returns a processor with a template and its special tokens; no test may change it.

    Args:
        template: The name of the template.
        asset: The asset that holds it; by default that of trl.
    """
    processor = build("qwen3_vl")
    processor.chat_template = chat_templates(asset)[template] if asset else chat_template(template)
    tokens = dict.fromkeys(_CONTROL.findall(processor.chat_template))
    known = processor.tokenizer.get_vocab()
    processor.tokenizer.add_special_tokens(
        {"additional_special_tokens": [t for t in tokens if t not in known]}
    )
    processor.tokenizer.bos_token = "<|endoftext|>"
    return processor
