"""Checks a collator at construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vlmcollate.encode.overlong import OverlongPolicy
from vlmcollate.errors import ConfigError
from vlmcollate.formats.variables import problem_with
from vlmcollate.prompt.structure import Structure
from vlmcollate.tokens.vocabulary import Vocabulary


def check_options(
    vocabulary: Vocabulary,
    *,
    max_length: int | None,
    on_overlong: OverlongPolicy,
    stop_tokens: Sequence[str],
    allowed_special_tokens: Sequence[str],
    structure: Callable[[], Structure],
    expansion_tokens: Callable[[], frozenset[str]],
    template_kwargs: Mapping[str, object],
) -> None:
    """Refuses options that conflict or that the tokenizer does not support.

    Args:
        vocabulary: The tokenizer's vocabulary.
        max_length: The maximum number of tokens of a sample.
        on_overlong: The policy for longer samples.
        stop_tokens: The tokens that end a turn.
        allowed_special_tokens: The tokens that every message may spell.
        structure: A function that returns the special tokens of the chat template.
        expansion_tokens: A function that returns the tokens that media expands to.
        template_kwargs: The variables of the template.

    Raises:
        ConfigError: An option is wrong.
    """
    if max_length is None and on_overlong != "raise":
        raise ConfigError(f"on_overlong={on_overlong!r} has no effect without max_length")
    if problem := problem_with(template_kwargs):
        raise ConfigError(f"template_kwargs: {problem}")
    unknown = [t for t in stop_tokens if vocabulary.id_of(t) is None]
    if unknown:
        raise ConfigError(f"stop_tokens {unknown} are not tokens of the tokenizer")
    if allowed_special_tokens:
        _check_allowed(allowed_special_tokens, vocabulary, structure(), expansion_tokens())


def _check_allowed(
    names: Sequence[str], vocabulary: Vocabulary, structure: Structure, media: frozenset[str]
) -> None:
    """Refuses unknown tokens, and tokens that not every message may spell."""
    for reason, refused in (
        (
            "open or close turns or stand for media",
            (structure.tokens - structure.unproven) | (media - structure.written),
        ),
        ("are written by the chat template, so only answers may write them", structure.written),
    ):
        found = [token for token in names if token in refused]
        if found:
            raise ConfigError(
                f"allowed_special_tokens {found} {reason}; name added tokens that the template "
                "does not write"
            )
    unknown = [token for token in names if token not in vocabulary.control_ids]
    if unknown:
        raise ConfigError(
            f"allowed_special_tokens {unknown} are not added tokens of the tokenizer; add them "
            "with tokenizer.add_tokens, or remove them"
        )
