"""A stand-in for the tokenizer of Kimi's remote code: Python around `tiktoken`, without offsets.

Its tokens are those of the real Qwen2.5, so the fast tokenizer of Qwen2.5 is its reference.
"""

from __future__ import annotations

import json
from functools import cache, cached_property
from typing import Any

import tiktoken
from transformers import AddedToken, PreTrainedTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.assets import tokenizer_dir

NAMED = ("eos_token", "pad_token")
CHARACTERS = bytes_to_unicode()
BYTES = {character: byte for byte, character in CHARACTERS.items()}


class TikTokenTokenizerStandIn(PreTrainedTokenizer):  # type: ignore[misc]  # Any to mypy
    """Wraps an encoding as remote code does, with special tokens as added tokens."""

    def __init__(self, model: Any, special_tokens: dict[str, int], **kwargs: Any) -> None:
        self.model = model
        self.special_tokens = special_tokens
        kwargs["added_tokens_decoder"] = {
            i: AddedToken(token, special=True) for token, i in special_tokens.items()
        }
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return int(self.model.n_vocab)

    def get_vocab(self) -> dict[str, int]:
        return self.encoder

    @cached_property
    def encoder(self) -> dict[str, int]:
        known = self.model.token_byte_values()
        of_bytes = {_spelled(token): self.model.encode_single_token(token) for token in known}
        return {**of_bytes, **self.special_tokens}

    @cached_property
    def decoder(self) -> dict[int, str]:
        return {i: token for token, i in self.encoder.items()}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self.decoder[i] for i in self.model.encode_ordinary(text)]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.encoder.get(token)

    def _convert_id_to_token(self, index: int) -> str | None:
        return self.decoder.get(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        data = bytes(BYTES[c] for c in "".join(tokens))
        return data.decode("utf-8", errors="replace")


def _spelled(token: bytes) -> str:
    """Spells bytes as vocabularies do, one character for each byte."""
    return "".join(CHARACTERS[byte] for byte in token)


def slow_tokenizer_stand_in(fast: Any) -> Any:
    """Builds the slow tokenizer with the tokens of a fast one that is based on Qwen2.5's."""
    pattern, ranks = _model()
    special = {str(token): i for i, token in fast.added_tokens_decoder.items()}
    model = tiktoken.Encoding(
        "stand-in", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special
    )
    slow = TikTokenTokenizerStandIn(model, special, **{name: getattr(fast, name) for name in NAMED})
    slow.chat_template = fast.chat_template
    return slow


@cache
def _model() -> tuple[str, dict[bytes, int]]:
    """Returns the pattern that splits the text, and the rank of each token."""
    facts = json.loads((tokenizer_dir("qwen2_5") / "tokenizer.json").read_text("utf-8"))
    (pattern,) = (
        part["pattern"]["Regex"]
        for part in facts["pre_tokenizer"]["pretokenizers"]
        if part["type"] == "Split"
    )
    vocabulary = facts["model"]["vocab"].items()
    return pattern, {bytes(BYTES[c] for c in token): rank for token, rank in vocabulary}
