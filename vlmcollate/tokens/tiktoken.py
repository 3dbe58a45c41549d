"""A `tiktoken` encoding with the interface of a `tokenizers.Tokenizer`.

Some checkpoints, such as Kimi's, contain their own tokenizer code around `tiktoken`, which returns
no offsets. Its tokens are bytes that together make up the text, so the offsets follow from their
lengths.

Shapes: L a text's tokens, N the vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@attrs.frozen(eq=False)
class TiktokenBackend:
    """The interface of a tokenizer that collators use, implemented with `tiktoken`.

    Attributes:
        encoding: A `tiktoken.Encoding`.
        added: The control tokens that are found in a text, with their ids.
    """

    encoding: Any
    added: Mapping[str, int]

    @classmethod
    def of(cls, tokenizer: Any) -> TiktokenBackend | None:
        """Returns the backend of a tokenizer with a `tiktoken` model, or `None`."""
        model = getattr(tokenizer, "model", None)
        if not hasattr(model, "encode_ordinary"):
            return None
        return cls(model, {str(token): i for i, token in tokenizer.added_tokens_decoder.items()})

    def encode(self, text: str) -> tuple[Ints, Ints]:
        """Encodes a text.

        Returns:
            The ids (L,), and the start and end (L, 2) of each token's characters. Tokens that share
            a character all include it.
        """
        ids: list[int] = []
        last = 0
        for found in self._pattern.finditer(text):
            ids += self.encoding.encode_ordinary(text[last : found.start()])
            ids.append(self.added[found.group()])
            last = found.end()
        ids += self.encoding.encode_ordinary(text[last:])
        known = np.array(ids, np.int64)
        ends = self._lengths[known].cumsum()
        return known, _as_characters(text, np.stack([ends - self._lengths[known], ends], axis=1))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some tokens."""
        return b"".join(self._bytes_of(i) for i in ids).decode("utf-8", "replace")

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a control token, or of a text that is one token."""
        if token in self.added:
            return self.added[token]
        ids = self.encoding.encode_ordinary(token)
        return int(ids[0]) if len(ids) == 1 else None

    def get_vocab_size(self) -> int:
        """Returns the number of tokens, including control tokens."""
        return int(max(self.encoding.n_vocab, *self.added.values(), 0) + 1)

    def to_str(self) -> str:
        """Returns everything that the ids of a text depend on."""
        tokens = [token.hex() for token in self.encoding.token_byte_values()]
        return json.dumps([self.encoding._pat_str, sorted(self.added.items()), tokens])

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.added, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _lengths(self) -> Ints:
        """(N,): the number of bytes of each token."""
        lengths = np.zeros(self.get_vocab_size(), np.int64)
        for token in self.encoding.token_byte_values():
            lengths[self.encoding.encode_single_token(token)] = len(token)
        for text, i in self.added.items():
            lengths[i] = len(text.encode())
        return lengths

    @cached_property
    def _added_by_id(self) -> dict[int, bytes]:
        return {i: token.encode() for token, i in self.added.items()}

    def _bytes_of(self, token_id: int) -> bytes:
        added = self._added_by_id.get(token_id)
        return self.encoding.decode_single_token_bytes(token_id) if added is None else added


def _as_characters(text: str, spans: Ints) -> Ints:
    """Converts spans of bytes to spans of the characters that they touch."""
    if text.isascii():
        return spans
    data = np.frombuffer(text.encode(), np.uint8)
    begun = np.concatenate([[0], ((data & 0xC0) != 0x80).cumsum()])  # characters begun before
    characters = spans.copy()
    characters[:, 0] = begun[np.minimum(spans[:, 0] + 1, len(data))] - 1
    characters[:, 1] = begun[spans[:, 1]]
    return characters
