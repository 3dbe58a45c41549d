"""Names the way from a slow tokenizer to a fast one."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def fast_conversion(tokenizer: Any) -> str:
    """Returns what to do to get the fast tokenizer of a slow one, as an imperative sentence."""
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS

    name, source = type(tokenizer).__name__, str(getattr(tokenizer, "name_or_path", "") or "")
    if source and (Path(source) / "tokenizer.json").is_file():
        return f"load the fast tokenizer with PreTrainedTokenizerFast.from_pretrained({source!r})"
    if name in SLOW_TO_FAST_CONVERTERS:
        return (
            "convert it with processor.tokenizer = PreTrainedTokenizerFast(tokenizer_object="
            "transformers.convert_slow_tokenizer.convert_slow_tokenizer(processor.tokenizer), "
            "chat_template=processor.tokenizer.chat_template, "
            "**processor.tokenizer.special_tokens_map)"
        )
    return (
        "load the fast tokenizer (one with a tokenizer.json); transformers has no conversion of "
        f"{name}"
    )
