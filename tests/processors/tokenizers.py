"""Real tokenizers, with the special tokens that a family adds."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from tests.assets import tokenizer_dir, tokenizer_dir_without_unused

_PIPELINE = ("normalizer", "pre_tokenizer", "post_processor", "decoder")


def tokenizer(name: str, *tokens: str, **named: str) -> Any:
    """Returns a copy of a real tokenizer, with special tokens of its own.

    Args:
        name: The asset, or `"gemma3_without_unused"`.
        *tokens: Special tokens.
        **named: Special tokens that are attributes of the tokenizer, such as `image_token`.
    """
    whole = name.removesuffix("_without_unused")
    folder = tokenizer_dir(name) if name == whole else tokenizer_dir_without_unused(whole)
    made = _copy(_loaded(folder))
    if named:
        _name(made, named)
    if tokens or named:
        made.add_special_tokens({"additional_special_tokens": [*tokens, *named.values()]})
    return made


@cache
def _loaded(folder: Path) -> Any:
    """Loads a tokenizer once a run, since parsing its vocabulary takes seconds."""
    loaded = AutoTokenizer.from_pretrained(folder)
    for source in ("_vocab", "_merges"):  # of the backend; nothing reads them later
        vars(loaded).pop(source, None)
    return loaded


def _copy(loaded: Any) -> Any:
    """Returns a copy that shares the vocabulary and the merges, which no method changes."""
    theirs = loaded.backend_tokenizer
    backend = Tokenizer(theirs.model)
    for step in _PIPELINE:
        if getattr(theirs, step) is not None:
            setattr(backend, step, getattr(theirs, step))
    backend.add_tokens([token for _, token in sorted(theirs.get_added_tokens_decoder().items())])
    own = {name: value for name, value in vars(loaded).items() if name != "_tokenizer"}
    made = copy.copy(loaded)
    vars(made).update(copy.deepcopy(own), _tokenizer=backend)
    return made


def _name(made: Any, named: dict[str, str]) -> None:
    """Names special tokens as `from_pretrained(extra_special_tokens=named)` does."""
    specific = {**made.init_kwargs.get("model_specific_special_tokens", {}), **named}
    made.init_kwargs["model_specific_special_tokens"] = specific
    made.SPECIAL_TOKENS_ATTRIBUTES = type(made).SPECIAL_TOKENS_ATTRIBUTES
    made._set_model_specific_special_tokens(specific)
    made.add_tokens([AddedToken(token, special=True) for token in made.all_special_tokens])
