"""What a tokenizer does beside its model, found when its vocabulary is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.tokens.conversion import fast_conversion

_AGREEMENT = "It's 12,345 tokens:\n\n  naïve 中文 текст 🏳️‍🌈\tdef f(x):\r\n    return x  "


def check_agreement(encode: Callable[[str], Any], added: Sequence[str], tokenizer: Any) -> None:
    """Refuses a tokenizer whose ids differ from those of its model in Python."""
    text = _AGREEMENT.join(["", *added[:4], ""])
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    try:
        found = encode(text).ids.tolist()
    except LabelError:
        found = None
    if found != expected:
        raise ConfigError(
            f"{type(tokenizer).__name__} returns no character offsets, and its tokens differ from "
            f"those of its own model; {fast_conversion(tokenizer)}"
        )


def wrapping_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the ids that the tokenizer itself adds before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ConfigError(
        f"{type(tokenizer).__name__} changes the text's own tokens when it adds special ones"
    )
