"""Tokenizes with character offsets and control over which text becomes a control token.

A Hugging Face fast tokenizer finds control tokens in any text. `Vocabulary` wraps the same model
twice, once with the added tokens and once without any, so that the caller decides which characters
may become a control token.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer

from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.tokens.agreement import check_agreement, wrapping_ids
from vlmcollate.tokens.backends import (
    HTML_TAG,
    Backend,
    PythonBackend,
    bare_clone,
    prefixes_a_space,
    with_offsets,
)
from vlmcollate.tokens.conversion import fast_conversion
from vlmcollate.tokens.sentencepiece import SentencePieceBackend
from vlmcollate.tokens.tiktoken import TiktokenBackend
from vlmcollate.tokens.token_bytes import TokenBytes
from vlmcollate.tokens.tokens import Flags, Tokens, id_table

Ints = npt.NDArray[np.int64]


@attrs.frozen(eq=False)
class Vocabulary:
    """A tokenizer's tokens, and the two ways to encode with them; see `Vocabulary.of`."""

    backend: Backend
    added: dict[str, AddedToken]
    prefix_ids: list[int]
    suffix_ids: list[int]
    bos_token: str | None
    state: object

    @classmethod
    def known(cls, tokenizer: Any) -> Vocabulary:
        """Returns the vocabulary that `of` found last, without a new check.

        Use it inside one call of a collator, which begins with `of`, since comparing all of Gemma's
        6,400 added tokens takes milliseconds.
        """
        return _KNOWN.get(tokenizer) or cls.of(tokenizer)

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """Returns a tokenizer's vocabulary, with its current added tokens.

        Args:
            tokenizer: A `transformers` tokenizer that is backed by the `tokenizers` library, or
                one that is backed by `tiktoken` or `sentencepiece`.

        Raises:
            ConfigError: The tokenizer has no such backend, so it has no offsets.
        """
        known = _KNOWN.get(tokenizer)
        if known is None or known.state != _state(tokenizer, known.backend):
            known = _KNOWN[tokenizer] = cls._read(tokenizer)
        return known

    @classmethod
    def _read(cls, tokenizer: Any) -> Vocabulary:
        backend: Backend | None = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            backend = TiktokenBackend.of(tokenizer) or SentencePieceBackend.of(tokenizer)
        if backend is None:
            raise ConfigError(
                f"{type(tokenizer).__name__} returns no character offsets, which exact labels "
                f"need; {fast_conversion(tokenizer)}"
            )
        prefix, suffix = wrapping_ids(tokenizer)
        added = sorted(tokenizer.added_tokens_decoder.items())
        found = cls(
            backend,
            {str(t): t for _, t in added},
            prefix,
            suffix,
            tokenizer.bos_token,
            _state(tokenizer, backend),
        )
        if isinstance(backend, PythonBackend):
            check_agreement(found.encode, list(found.added), tokenizer)
        return found

    @cached_property
    def control(self) -> Backend:
        """The backend that finds control tokens in text, and neither trims, pads nor truncates."""
        if isinstance(self.backend, PythonBackend):
            return self.backend
        clone = bare_clone(self.backend)
        clone.add_tokens(list(self.added.values()))
        if all(clone.token_to_id(t) == self.backend.token_to_id(t) for t in self.added):
            return clone
        full = Tokenizer.from_str(
            self.backend.to_str()
        )  # ids with gaps: slower to build, same tokens
        full.no_padding()
        full.no_truncation()
        full.post_processor = None
        return full

    @cached_property
    def plain(self) -> Backend:
        """The backend without control tokens, which encodes everything as plain text."""
        harmless = {name: t for name, t in self.added.items() if name not in self.control_ids}
        if isinstance(self.backend, PythonBackend):
            added = self.backend.added
            return attrs.evolve(self.backend, added={t: added[t] for t in harmless})
        clone = bare_clone(self.backend)
        known = [t for name, t in harmless.items() if clone.token_to_id(name) == self.id_of(name)]
        clone.add_tokens(known)
        return clone

    @cached_property
    def control_ids(self) -> dict[str, int]:
        """The control tokens with their ids.

        These are the added tokens that plain text cannot produce, special or not (`<think>`),
        except the HTML tags that are ordinary text in some vocabularies (Gemma's `<td>`).
        """
        bare = (
            attrs.evolve(self.backend, added={})
            if isinstance(self.backend, PythonBackend)
            else bare_clone(self.backend)
        )
        ids = {token: self.backend.token_to_id(token) for token in self.added}
        return {
            token: i
            for token, i in ids.items()
            if i is not None
            and _encode(bare, token, 0).ids.tolist() != [i]
            and (self.is_special(token) or not HTML_TAG.fullmatch(token))
        }

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The pattern of any control token, longest first."""
        return token_pattern(self.control_ids)

    @cached_property
    def _controls(self) -> Flags:
        """Whether each id is a control token; see `id_table`."""
        return id_table(self.control_ids.values())

    @cached_property
    def prefixes_a_space(self) -> bool:
        """Whether it adds a space before text, so that a part by itself has different tokens."""
        return prefixes_a_space(self.backend)

    def is_special(self, token: str) -> bool:
        """Returns whether a token is declared special, rather than only added."""
        return token in self.added and bool(self.added[token].special)

    def is_space(self, token_id: int) -> bool:
        """Returns whether a token consists only of whitespace."""
        return self.decode([token_id]).isspace()

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of some tokens, including control tokens."""
        if isinstance(self.backend, PythonBackend):
            return self.backend.decode(ids)
        text: str = self.backend.decode(list(ids), skip_special_tokens=False)
        return text

    def id_of(self, token: str) -> int | None:
        """Returns the id of a token, or `None`."""
        found: int | None = self.backend.token_to_id(token)
        return found

    def is_control(self, ids: Ints) -> Flags:
        """Returns which ids are control tokens, (L,) bool."""
        found: Flags = self._controls.take(ids + 1, mode="clip")
        return found

    def encode(self, text: str, cuts: Sequence[int] = ()) -> Tokens:
        """Encodes text and the control tokens in it.

        Args:
            text: The text.
            cuts: The positions that no token may cross.

        Raises:
            LabelError: There are cuts, and the tokenizer cannot encode a part of a text separately.
        """
        if not cuts:
            return _encode(self.control, text, 0, self._spans)
        if self.prefixes_a_space:
            raise LabelError(
                "the answer begins inside a token, and this tokenizer adds a space before text, so "
                "the answer cannot be encoded separately; strip the answer's leading whitespace"
            )
        borders = [0, *cuts, len(text)]
        return Tokens.join(
            _encode(self.control, text[a:b], a, self._spans)
            for a, b in zip(borders, borders[1:], strict=False)
        )

    def recut(self, text: str, tokens: Tokens, cuts: Sequence[int]) -> Tokens:
        """Returns what `encode` returns with cuts, for a text that was encoded without any.

        Text between two control tokens is encoded by itself, so only text with a cut is encoded
        again.

        Args:
            text: The text.
            tokens: Its tokens.
            cuts: The positions that no token may cross, in ascending order, at least one.

        Raises:
            LabelError: See `encode`.
        """
        borders = np.flatnonzero(self._borders.take(tokens.ids + 1, mode="clip"))
        starts, ends = tokens.starts[borders], tokens.ends[borders]
        gaps = ends.searchsorted(cuts, "right")
        is_crossed = bool((gaps != starts.searchsorted(cuts)).any())
        if is_crossed or self.prefixes_a_space or not len(borders):
            return self.encode(text, cuts)
        pieces: list[Tokens] = []
        done = 0
        for gap, group in groupby(zip(gaps.tolist(), cuts, strict=True), lambda pair: pair[0]):
            first = int(borders[gap - 1]) + 1 if gap else 0
            behind = int(borders[gap]) if gap < len(borders) else len(tokens.ids)
            start = int(ends[gap - 1]) if gap else 0
            end = int(starts[gap]) if gap < len(borders) else len(text)
            places = [start, *(cut for _, cut in group), end]
            pieces.append(tokens[done:first])
            pieces += [
                self._encode_part(text[a:b], a) for a, b in zip(places, places[1:], strict=False)
            ]
            done = behind
        return Tokens.join([*pieces, tokens[done:]])

    def _encode_part(self, text: str, offset: int) -> Tokens:
        """Encodes a part of a text, of which headers of turns repeat."""
        if len(text) > _MOST_KEPT_CHARS:
            return _encode(self.control, text, offset, self._spans)
        if text not in self._parts:
            if len(self._parts) >= _MOST_KEPT_PARTS:
                self._parts.clear()
            self._parts[text] = _encode(self.control, text, 0, self._spans)
        known = self._parts[text]
        return Tokens(known.ids, known.starts + offset, known.ends + offset)

    @cached_property
    def _parts(self) -> dict[str, Tokens]:
        """The tokens of short texts that were encoded again."""
        return {}

    @cached_property
    def _spans(self) -> TokenSpans | None:
        """Finds the characters of tokens; `None` for a tokenizer in Python, which returns them."""
        if isinstance(self.backend, PythonBackend):
            return None
        ids = map(self.backend.token_to_id, self.added)
        return TokenSpans(self.backend, [i for i in ids if i is not None])

    @cached_property
    def _borders(self) -> Flags:
        """Whether a text may be encoded in parts around each id; see `id_table`."""
        if any(token.single_word for token in self.added.values()):
            return id_table([])
        return id_table([i for t, i in self.control_ids.items() if not self.added[t].normalized])

    def encode_plain(self, text: str, offset: int) -> Tokens:
        """Encodes text without control tokens; characters count from `offset`."""
        return _encode(self.plain, text, offset, self._spans)

    def control_token(self, token: str, start: int, end: int) -> Tokens:
        """Returns one control token for the characters from `start` to `end`."""
        return Tokens(*(np.array([n], np.int64) for n in (self.id_of(token), start, end)))


class TokenSpans:
    """Finds the characters of tokens by the bytes that each token stands for.

    A tokenizer's own offsets are a Python tuple for every token, which takes longer to read than
    the bytes. Nothing is assumed of a tokenizer: joined, the bytes have to be the text.

    Args:
        backend: The tokenizer.
        added_ids: The ids of its added tokens.
    """

    def __init__(self, backend: Tokenizer, added_ids: Collection[int]) -> None:
        size = max(backend.get_vocab_size(), *(i + 1 for i in added_ids), 1)
        self._lengths = np.zeros(size, np.int64)
        self._pieces: list[bytes | None] = [None] * size
        self._bytes = TokenBytes(backend, added_ids)
        self._are_usual = True  # whether the last text was found

    def encode(self, backend: Tokenizer, text: str) -> Tokens | None:
        """Encodes a text without offsets, which takes less time, and finds its characters.

        Returns:
            The tokens; `None` if this text, or the one before, needs the tokenizer's own offsets.
        """
        if not self._are_usual:
            return None
        (encoding,) = backend.encode_batch_fast([text], add_special_tokens=False)
        return self.find(text, encoding.ids)

    def find(self, text: str, ids: list[int]) -> Tokens | None:
        """Finds the characters of tokens.

        Args:
            text: The text.
            ids: Its L tokens.

        Returns:
            The tokens; `None` if their bytes are not those of the text, as when a tokenizer
            normalises it, or if a token holds a part of a character.
        """
        found = self._find(text, ids)
        self._are_usual = found is not None
        return found

    def _find(self, text: str, ids: list[int]) -> Tokens | None:
        try:
            encoded, joined = text.encode(), self._joined(ids)
        except (UnicodeEncodeError, IndexError):  # a lone surrogate, or an id that has no bytes
            return None
        numbers = np.array(ids, np.int64)
        lengths = self._lengths[numbers]
        if joined != encoded:
            return None
        ends = lengths.cumsum()
        starts = ends - lengths
        if len(encoded) == len(text):
            return Tokens(numbers, starts, ends)
        is_first = np.frombuffer(encoded, np.uint8) & 0xC0 != 0x80
        if not is_first[starts].all():
            return None
        before = np.concatenate([[0], is_first.cumsum()])
        return Tokens(numbers, before[starts], before[ends])

    def _joined(self, ids: list[int]) -> bytes:
        """Returns the bytes of some tokens, which are read when they are first asked for."""
        pieces = self._pieces
        try:
            return b"".join([pieces[i] for i in ids])  # type: ignore[misc]  # None raises
        except TypeError:
            for i in set(ids):
                found = self._bytes.read(i)
                self._lengths[i], pieces[i] = len(found), found or None
            if not all(pieces[i] for i in ids):
                raise IndexError("a token stands for no byte") from None
            return b"".join([pieces[i] for i in ids])  # type: ignore[misc]  # as above


_MOST_KEPT_CHARS, _MOST_KEPT_PARTS = 32, 1024
_KNOWN: weakref.WeakKeyDictionary[Any, Vocabulary] = weakref.WeakKeyDictionary()


def token_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern of the tokens, longest first; of nothing without any."""
    return _pattern_of(tuple(tokens))


@lru_cache(maxsize=256)
def _pattern_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _encode(backend: Backend, text: str, offset: int, spans: TokenSpans | None = None) -> Tokens:
    if isinstance(backend, PythonBackend):
        ids, characters = backend.encode(text)
        return Tokens(ids, characters[:, 0] + offset, characters[:, 1] + offset)
    found = None if spans is None else spans.encode(backend, text)
    if found is None:
        encoding = backend.encode(text, add_special_tokens=False)
        found = None if spans is None else spans.find(text, encoding.ids)
        found = with_offsets(encoding) if found is None else found
    return Tokens(found.ids, found.starts + offset, found.ends + offset) if offset else found


def _state(tokenizer: Any, backend: Backend) -> object:
    """Returns a value that changes with every change of added tokens, or of those with names."""
    named = tokenizer.bos_token, tokenizer.eos_token
    if isinstance(backend, PythonBackend):
        return *named, dict(tokenizer.added_tokens_decoder)
    return *named, backend.get_added_tokens_decoder()
