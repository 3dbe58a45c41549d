"""The bytes that each token stands for."""

from __future__ import annotations

import re
from collections.abc import Collection

from tokenizers import Tokenizer

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_SPACE = "▁"


class TokenBytes:
    """Reads the bytes of tokens.

    Args:
        backend: The tokenizer.
        added_ids: The ids of its added tokens.
    """

    def __init__(self, backend: Tokenizer, added_ids: Collection[int]) -> None:
        self._backend, self._added_ids = backend, frozenset(added_ids)
        self._is_byte_level = "ByteLevel" in repr(backend.pre_tokenizer)

    def read(self, token_id: int) -> bytes:
        """Returns the bytes of a token."""
        token = self._backend.id_to_token(token_id) or ""
        is_own_text = token_id in self._added_ids and token.strip(
            _SPACE
        )  # Gemma adds runs of spaces
        return token.encode() if is_own_text else self._read(token)

    def _read(self, token: str) -> bytes:
        if self._is_byte_level:
            return bytes(_BYTE_OF.get(character, 0) for character in token)
        byte = _BYTE.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()


def _byte_characters() -> dict[str, int]:
    """Returns the byte of each character that byte-level tokenizers write for it.

    Source:
        tokenizers, `bytes_char`, which follows GPT-2: printable bytes stand for themselves, and the
        others for the characters from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_BYTE_OF = _byte_characters()
