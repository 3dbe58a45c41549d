"""The tokenizer as the collators need it: offsets on demand, and text that stays text.

A Hugging Face fast tokenizer finds control tokens in whatever text it is given. `Vocabulary` wraps
the same model twice, once with the added tokens and once without any, so that the caller decides
which characters may become a control token.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer

from vlmcollate.errors import ConfigError, LabelError
from vlmcollate.tokens.tiktoken import TiktokenBackend

Ints = npt.NDArray[np.int64]
Backend = Tokenizer | TiktokenBackend


@attrs.frozen(eq=False)
class Tokens:
    """Token ids with the characters that each came from.

    Attributes:
        ids: (L,) int64.
        starts: (L,) int64, the first character of each token.
        ends: (L,) int64, the character after its last one.
    """

    ids: Ints
    starts: Ints
    ends: Ints

    @classmethod
    def join(cls, pieces: Iterable[Tokens]) -> Tokens:
        """One sequence out of several."""
        kept = list(pieces)
        return cls(*(np.concatenate([getattr(p, f.name) for p in kept]) for f in attrs.fields(cls)))


@attrs.frozen(eq=False)
class Vocabulary:
    """What a tokenizer knows, and the two ways to encode with it; see `Vocabulary.of`."""

    backend: Backend
    added: dict[str, AddedToken]
    prefix_ids: list[int]
    suffix_ids: list[int]
    bos_token: str | None
    state: object

    @classmethod
    def known(cls, tokenizer: Any) -> Vocabulary:
        """The vocabulary that `of` found last, without another look at the tokenizer.

        For what happens inside one call of a collator, which begins with `of`: comparing all of
        Gemma's 6,400 added tokens takes milliseconds.
        """
        return _KNOWN.get(tokenizer) or cls.of(tokenizer)

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """The vocabulary of a tokenizer, read again whenever an added token has changed.

        Args:
            tokenizer: A `transformers` tokenizer that is backed by the `tokenizers` library, or
                one of remote code that is by `tiktoken`.

        Raises:
            ConfigError: The tokenizer has neither, so it cannot give offsets.
        """
        known = _KNOWN.get(tokenizer)
        if known is None or known.state != _state(tokenizer, known.backend):
            known = _KNOWN[tokenizer] = cls._read(tokenizer)
        return known

    @classmethod
    def _read(cls, tokenizer: Any) -> Vocabulary:
        backend: Backend | None = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            backend = TiktokenBackend.of(tokenizer)
        if backend is None:
            raise ConfigError(
                f"{type(tokenizer).__name__} gives no character offsets, and exact labels need "
                "them; load the fast tokenizer (one with a tokenizer.json)"
            )
        prefix, suffix = _wrapping_ids(tokenizer)
        added = sorted(tokenizer.added_tokens_decoder.items())
        found = cls(
            backend,
            {str(t): t for _, t in added},
            prefix,
            suffix,
            tokenizer.bos_token,
            _state(tokenizer, backend),
        )
        if isinstance(backend, TiktokenBackend):
            _check_agreement(found, tokenizer)
        return found

    @cached_property
    def control(self) -> Backend:
        """Finds control tokens in the text, and neither trims, pads nor cuts."""
        if isinstance(self.backend, TiktokenBackend):
            return self.backend
        clone = _bare_clone(self.backend)
        clone.add_tokens(list(self.added.values()))
        if all(clone.token_to_id(t) == self.backend.token_to_id(t) for t in self.added):
            return clone
        full = Tokenizer.from_str(
            self.backend.to_str()
        )  # ids with gaps: slower to build, same facts
        full.no_padding()
        full.no_truncation()
        full.post_processor = None
        return full

    @cached_property
    def plain(self) -> Backend:
        """Knows no control token: whatever stands in the text is encoded as text."""
        harmless = {name: t for name, t in self.added.items() if name not in self.control_ids}
        if isinstance(self.backend, TiktokenBackend):
            added = self.backend.added
            return attrs.evolve(self.backend, added={t: added[t] for t in harmless})
        clone = _bare_clone(self.backend)
        known = [t for name, t in harmless.items() if clone.token_to_id(name) == self.id_of(name)]
        clone.add_tokens(known)
        return clone

    @cached_property
    def control_ids(self) -> dict[str, int]:
        """The control tokens with their ids.

        These are the added tokens that plain text cannot produce, special or not (`<think>`), but
        for the HTML tags that some vocabularies hold as pieces of ordinary text (Gemma's `<td>`).
        """
        bare = (
            attrs.evolve(self.backend, added={})
            if isinstance(self.backend, TiktokenBackend)
            else _bare_clone(self.backend)
        )
        ids = {token: self.backend.token_to_id(token) for token in self.added}
        return {
            token: i
            for token, i in ids.items()
            if i is not None
            and _encode(bare, token, 0).ids.tolist() != [i]
            and (self.is_special(token) or not _HTML_TAG.fullmatch(token))
        }

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches any control token, longest first."""
        return token_pattern(self.control_ids)

    @cached_property
    def _sorted_control_ids(self) -> Ints:
        return np.array(sorted(self.control_ids.values()), dtype=np.int64)

    @cached_property
    def prefixes_a_space(self) -> bool:
        """Whether it puts a space before text, so that a part encodes unlike in its whole."""
        if isinstance(self.backend, TiktokenBackend):
            return False
        parts = [p for p in (self.backend.normalizer, self.backend.pre_tokenizer) if p is not None]
        state = " ".join(json.dumps(json.loads(p.__getstate__())) for p in parts)
        return bool(
            re.search(r'"type": "Prepend"|"prepend_scheme": "(first|always)"', state)
            or re.search(r'"add_prefix_space": true', state)
        )

    def is_special(self, token: str) -> bool:
        """Whether a token is declared special, rather than only added."""
        return token in self.added and bool(self.added[token].special)

    def is_space(self, token_id: int) -> bool:
        """Whether a token is nothing but whitespace."""
        return self.decode([token_id]).isspace()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, control tokens included."""
        if isinstance(self.backend, TiktokenBackend):
            return self.backend.decode(ids)
        text: str = self.backend.decode(list(ids), skip_special_tokens=False)
        return text

    def id_of(self, token: str) -> int | None:
        """The id of a token, or `None`."""
        found: int | None = self.backend.token_to_id(token)
        return found

    def is_control(self, ids: Ints) -> npt.NDArray[np.bool_]:
        """Which ids are control tokens, (L,) bool."""
        known = self._sorted_control_ids
        if not len(known):
            return np.zeros(len(ids), dtype=bool)
        at = np.searchsorted(known, ids)
        found: npt.NDArray[np.bool_] = known[np.minimum(at, len(known) - 1)] == ids
        return found

    def encode(self, text: str, cuts: Sequence[int] = ()) -> Tokens:
        """Encodes text in which control tokens are meant as such.

        Args:
            text: The text.
            cuts: Characters that no token may straddle.

        Raises:
            LabelError: A cut falls inside a word, and the tokenizer cannot encode half a text.
        """
        if not cuts:
            return _encode(self.control, text, 0)
        if self.prefixes_a_space:
            raise LabelError(
                "the answer begins inside a token, and this tokenizer puts a space before text, so "
                "the answer cannot be encoded apart; strip the answer's leading whitespace"
            )
        borders = [0, *cuts, len(text)]
        return Tokens.join(
            _encode(self.control, text[a:b], a) for a, b in zip(borders, borders[1:], strict=False)
        )

    def encode_plain(self, text: str, offset: int) -> Tokens:
        """Encodes text in which nothing is a control token; characters count from `offset`."""
        return _encode(self.plain, text, offset)

    def control_token(self, token: str, start: int, end: int) -> Tokens:
        """One control token for the characters from `start` to `end`."""
        return Tokens(*(np.array([n], np.int64) for n in (self.id_of(token), start, end)))


_HTML_TAG = re.compile(
    "</?(a|b|blockquote|body|caption|code|div|em|footer|h[1-6]|html|i|iframe|img|li|ol|p|s|span"
    "|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|u|ul)>"
)
_KNOWN: weakref.WeakKeyDictionary[Any, Vocabulary] = weakref.WeakKeyDictionary()


def token_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of the tokens, longest first, and nothing where there are none."""
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _encode(backend: Backend, text: str, offset: int) -> Tokens:
    if isinstance(backend, TiktokenBackend):
        ids, characters = backend.encode(text)
        return Tokens(ids, characters[:, 0] + offset, characters[:, 1] + offset)
    encoding = backend.encode(text, add_special_tokens=False)
    offsets = encoding.offsets
    flat = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets))
    spans = flat.reshape(-1, 2) + offset
    return Tokens(np.array(encoding.ids, dtype=np.int64), spans[:, 0], spans[:, 1])


def _bare_clone(backend: Tokenizer) -> Tokenizer:
    clone = Tokenizer(backend.model)  # shares the model, so this is instant
    if backend.normalizer is not None:
        clone.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        clone.pre_tokenizer = backend.pre_tokenizer
    return clone


def _state(tokenizer: Any, backend: Backend) -> object:
    """What changes when a token is added to a tokenizer, even again with other flags."""
    if isinstance(backend, TiktokenBackend):
        return tokenizer.bos_token, dict(tokenizer.added_tokens_decoder)
    return tokenizer.bos_token, backend.get_added_tokens_decoder()


_AGREEMENT = "It's 12,345 tokens:\n\n  naïve 中文 текст 🏳️‍🌈\tdef f(x):\r\n    return x  "


def _check_agreement(vocabulary: Vocabulary, tokenizer: Any) -> None:
    """Refuses a tokenizer that does more to a text than its `tiktoken` encoding."""
    text = _AGREEMENT.join(["", *list(vocabulary.added)[:4], ""])
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    if vocabulary.encode(text).ids.tolist() != expected:
        raise ConfigError(
            f"{type(tokenizer).__name__} gives no character offsets, and other tokens than the "
            "tiktoken encoding inside it, so they are unknown; load a fast tokenizer (one with "
            "a tokenizer.json)"
        )


def _wrapping_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer itself puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ConfigError(
        f"{type(tokenizer).__name__} changes the text's own tokens when it adds special ones"
    )
