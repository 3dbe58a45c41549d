"""A `sentencepiece` model with the interface of a `tokenizers.Tokenizer`.

Slow tokenizers around such a model return no offsets. The model itself reports the characters of
each piece, which together have to be the text.

Shapes: L a text's tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.errors import LabelError

Ints = npt.NDArray[np.int64]

_SPACE = "\u2581"


def _kept(tokenizer: Any) -> Iterator[Any]:
    """Yields the added tokens with settings of their own."""
    return (t for t in tokenizer.added_tokens_decoder.values() if not isinstance(t, str))


@attrs.frozen(eq=False)
class SentencePieceBackend:
    """The interface of a tokenizer that collators use, implemented with `sentencepiece`.

    Attributes:
        model: A `sentencepiece.SentencePieceProcessor`.
        added: The control tokens that are found in a text, with their ids.
        shield: The text that the tokenizer puts before a part that begins with a space, and whose
            tokens it removes; empty if it does not.
    """

    model: Any
    added: Mapping[str, int]
    shield: str = ""

    @classmethod
    def of(cls, tokenizer: Any) -> SentencePieceBackend | None:
        """Returns the backend of a tokenizer with a `sentencepiece` model, or `None`."""
        model = getattr(tokenizer, "sp_model", None)
        if not hasattr(model, "id_to_piece") or not hasattr(model, "piece_to_id"):
            return None
        if any(t.lstrip or t.rstrip or t.single_word for t in _kept(tokenizer)):
            return None  # the tokenizer changes the text around these tokens
        is_legacy = getattr(tokenizer, "legacy", True)
        shield = "" if is_legacy else str(tokenizer.unk_token or "")
        added = {str(token): i for i, token in tokenizer.added_tokens_decoder.items()}
        return cls(model, added, shield)

    def encode(self, text: str) -> tuple[Ints, Ints]:
        """Encodes a text.

        Returns:
            The ids (L,), and the start and end (L, 2) of each token's characters. Tokens that share
            a character all include it; a space that only the model adds has none.

        Raises:
            LabelError: The pieces are not together the text.
        """
        found: list[tuple[int, int, int]] = []
        last = 0
        for match in self._pattern.finditer(text):
            found += self._encode_part(text[last : match.start()], last)
            found.append((self.added[match.group()], *match.span()))
            last = match.end()
        found += self._encode_part(text[last:], last)
        table = np.array(found, np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1:]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some tokens."""
        texts: list[str] = []
        pieces: list[int] = []
        for i in [*ids, -1]:
            if i >= 0 and i not in self._added_by_id:
                pieces.append(i)
                continue
            text = self.model.decode(pieces) if pieces else ""
            begins_with_space = bool(pieces) and self.model.id_to_piece(pieces[0])[:1] == _SPACE
            texts += [" " * (begins_with_space and text[:1] != " "), text]
            texts.append(self._added_by_id.get(i, ""))
            pieces = []
        return "".join(texts)

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a control token, or of a piece."""
        if token in self.added:
            return self.added[token]
        number = int(self.model.piece_to_id(token))
        return number if self.model.id_to_piece(number) == token else None

    def to_str(self) -> str:
        """Returns everything that the ids of a text depend on."""
        proto = hashlib.sha256(self.model.serialized_model_proto()).hexdigest()
        return json.dumps([proto, sorted(self.added.items()), self.shield])

    @property
    def prefixes_a_space(self) -> bool:
        """Whether the model adds a space before a text."""
        ids, _ = attrs.evolve(self, added={}).encode("a")
        return len(ids) > 0 and self.model.id_to_piece(int(ids[0])).startswith(_SPACE)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.added, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @cached_property
    def _added_by_id(self) -> dict[int, str]:
        return {i: token for token, i in self.added.items()}

    def _pieces(self, text: str) -> list[tuple[int, str]]:
        """Returns the pieces of a text, each with the characters that it stands for."""
        encode = getattr(self.model, "encode_as_proto", None)
        proto = (encode or self.model.encode_as_immutable_proto)(text)
        return [(int(piece.id), str(piece.surface)) for piece in proto.pieces]

    def _encode_part(self, text: str, offset: int) -> Iterator[tuple[int, int, int]]:
        """Yields the ids of a text without control tokens, with their characters."""
        if not text:
            return
        if self.shield and text.startswith((_SPACE, " ")):
            pieces = self._pieces(self.shield + text)[len(self._pieces(self.shield)) :]
        else:
            pieces = self._pieces(text)
        if "".join(surface for _, surface in pieces) != text:
            raise LabelError(
                f"the tokenizer's pieces are not the text: found {pieces[:8]}, expected "
                f"{text[:40]!r}; load a fast tokenizer (one with a tokenizer.json)"
            )
        waiting: list[int] = []
        for number, surface in pieces:
            if not surface and self.model.is_byte(number):
                waiting.append(number)  # the last byte of a character has the character
                continue
            for shared in (*waiting, number):
                yield shared, offset, offset + len(surface)
            waiting, offset = [], offset + len(surface)
