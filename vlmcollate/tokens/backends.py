"""The libraries that tokenizers are backed by."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from vlmcollate.tokens.sentencepiece import SentencePieceBackend
from vlmcollate.tokens.tiktoken import TiktokenBackend
from vlmcollate.tokens.tokens import Tokens

PythonBackend = TiktokenBackend | SentencePieceBackend
Backend = Tokenizer | PythonBackend
HTML_TAG = re.compile(
    "</?(a|b|blockquote|body|caption|code|div|em|footer|h[1-6]|html|i|iframe|img|li|ol|p|s|span"
    "|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|u|ul)>"
)
"""HTML tags that are ordinary text in some vocabularies."""


def bare_clone(backend: Tokenizer) -> Tokenizer:
    """Returns a tokenizer with the same model and without added tokens."""
    clone = Tokenizer(backend.model)  # shares the model, so this is instant
    if backend.normalizer is not None:
        clone.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        clone.pre_tokenizer = backend.pre_tokenizer
    return clone


def prefixes_a_space(backend: Backend) -> bool:
    """Returns whether a tokenizer adds a space before text."""
    if isinstance(backend, PythonBackend):
        return isinstance(backend, SentencePieceBackend) and backend.prefixes_a_space
    parts = [p for p in (backend.normalizer, backend.pre_tokenizer) if p is not None]
    state = " ".join(json.dumps(json.loads(p.__getstate__())) for p in parts)
    return bool(
        re.search(r'"type": "Prepend"|"prepend_scheme": "(first|always)"', state)
        or re.search(r'"add_prefix_space": true', state)
    )


def with_offsets(encoding: Any) -> Tokens:
    """Returns tokens with the characters that the tokenizer itself found for them."""
    offsets = encoding.offsets
    flat = np.fromiter(chain.from_iterable(offsets), np.int64, 2 * len(offsets))
    places = flat.reshape(-1, 2)
    return Tokens(np.array(encoding.ids, np.int64), places[:, 0], places[:, 1])
