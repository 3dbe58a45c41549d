"""A stand-in for a `sentencepiece` model, and a slow tokenizer around one.

The model takes the longest piece, spells other characters as bytes, and adds a space before a text
if asked to, as models of that package do.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from transformers import AddedToken, PreTrainedTokenizer

_SPACE = "\u2581"
WORDS = ("the", "cat", "sat", "system", "user", "assistant", "Hello", "is", "it", "mild")


class SentencePieceModelStandIn:
    """A model of words, characters and bytes."""

    def __init__(self, *, adds_space: bool) -> None:
        self.adds_space = adds_space
        letters = [chr(code) for code in range(0x21, 0x7F)]
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        pieces += [_SPACE, *letters, *(_SPACE + x for x in (*letters, *WORDS)), *WORDS]
        self.pieces = list(dict.fromkeys(pieces))
        self.ids = {piece: i for i, piece in enumerate(self.pieces)}
        self.longest = max(map(len, self.pieces))

    def get_piece_size(self) -> int:
        return len(self.pieces)

    def id_to_piece(self, number: int) -> str:
        return self.pieces[number]

    def piece_to_id(self, piece: str) -> int:
        return self.ids.get(piece, 0)

    def is_byte(self, number: int) -> bool:
        return 3 <= number < 259

    def serialized_model_proto(self) -> bytes:
        return repr((self.pieces, self.adds_space)).encode()

    def decode(self, numbers: list[int]) -> str:
        data = b""
        for number in numbers:
            piece = self.pieces[number].replace(_SPACE, " ")
            data += bytes([number - 3]) if self.is_byte(number) else piece.encode()
        text = data.decode("utf-8", "replace")
        return text[1:] if self.adds_space and text[:1] == " " else text

    def encode_as_proto(self, text: str) -> Any:
        found: list[tuple[str, str]] = []
        added = _SPACE if self.adds_space and text else ""
        normal = added + text.replace(" ", _SPACE)
        at = 0
        while at < len(normal):
            ends = range(min(len(normal), at + self.longest), at, -1)
            known = (normal[at:end] for end in ends if self.ids.get(normal[at:end], 0) > 258)
            piece = next(known, "")
            surface = text[max(at - len(added), 0) : max(at + len(piece or " ") - len(added), 0)]
            if piece:
                found.append((piece, surface))
            else:
                *first, last = (f"<0x{byte:02X}>" for byte in surface.encode())
                found += [*((byte, "") for byte in first), (last, surface)]
            at += len(piece) or 1
        pieces = [SimpleNamespace(id=self.ids[p], piece=p, surface=s) for p, s in found]
        return SimpleNamespace(pieces=pieces)


class SentencePieceTokenizerStandIn(PreTrainedTokenizer):  # type: ignore[misc]  # Any to mypy
    """A slow tokenizer, as transformers and remote code wrap a model."""

    def __init__(self, model: Any, **kwargs: Any) -> None:
        self.sp_model = model
        self.legacy = True
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return int(self.sp_model.get_piece_size())

    def get_vocab(self) -> dict[str, int]:
        known = {self.sp_model.id_to_piece(i): i for i in range(self.vocab_size)}
        return {**known, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [piece.piece for piece in self.sp_model.encode_as_proto(text).pieces]

    def _convert_token_to_id(self, token: str) -> int:
        return int(self.sp_model.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.sp_model.id_to_piece(index))


def sentencepiece_stand_in(fast: Any, *, adds_space: bool) -> SentencePieceTokenizerStandIn:
    """Builds a slow tokenizer with the special tokens and the template of a fast one."""
    model = SentencePieceModelStandIn(adds_space=adds_space)
    special = [str(token) for token in fast.added_tokens_decoder.values()]
    slow = SentencePieceTokenizerStandIn(
        model, unk_token="<unk>", eos_token=fast.eos_token, pad_token=fast.pad_token
    )
    slow.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    slow.chat_template = fast.chat_template
    return slow
