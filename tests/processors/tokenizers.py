"""Real tokenizers, with the special tokens that a family adds."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from tests.assets import tokenizer_dir, tokenizer_dir_without_unused


def tokenizer(name: str, *tokens: str, **named: str) -> Any:
    """Loads a real tokenizer and adds special tokens.

    Args:
        name: The asset, or `"gemma3_without_unused"`.
        *tokens: Special tokens.
        **named: Special tokens that are attributes of the tokenizer, such as `image_token`.
    """
    options = {"extra_special_tokens": named} if named else {}
    whole = name.removesuffix("_without_unused")
    folder = tokenizer_dir(name) if name == whole else tokenizer_dir_without_unused(whole)
    loaded = AutoTokenizer.from_pretrained(folder, **options)
    if tokens or named:
        loaded.add_special_tokens({"additional_special_tokens": [*tokens, *named.values()]})
    return loaded
