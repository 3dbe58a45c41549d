"""Merges the options of a processor's call once, which transformers validates at each call."""

from __future__ import annotations

import marshal
from collections.abc import Hashable, Mapping
from functools import cache
from inspect import signature
from typing import Any

from vlmcollate.tokens.identity_cache import IdentityCache

_MOST_CALLS = 32
_PARTS = ("tokenizer", "image_processor", "feature_extractor", "video_processor")
"""The attributes of a processor whose classes declare options."""
_KNOWN = IdentityCache[dict[Any, bytes]]()
"""For each processor, the merged options by all that decides them, as bytes that make new ones."""


@cache
def merges_as_usual(kind: Hashable) -> bool:
    """Returns whether a class of processors merges options by the usual method."""
    from transformers import ProcessorMixin

    known: Any = getattr(ProcessorMixin, "_merge_kwargs", None)
    if known is None or getattr(kind, "_merge_kwargs", None) is not known:
        return False
    declared = list(signature(ProcessorMixin._merge_kwargs).parameters.values())[
        1
    ]  # older releases demand it
    return hasattr(kind, "valid_processor_kwargs") and declared.default is None


def merged_options(
    processor: Any,
    declared: Any = None,
    tokenizer_init_kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Returns what `ProcessorMixin._merge_kwargs` does, and remembers it.

    Options that are not of Python's plain types are merged at each call.

    Args:
        processor: A processor that merges options by the usual method.
        declared: The typed dictionary that declares the options; the processor's by default.
        tokenizer_init_kwargs: The options with which the tokenizer was made.
        options: The options of the call.
    """
    kind, init = declared or processor.valid_processor_kwargs, tokenizer_init_kwargs or {}
    parts = [getattr(getattr(processor, name, None), "valid_kwargs", None) for name in _PARTS]
    decisive = [
        options,
        getattr(kind, "_defaults", None),
        [(n, getattr(processor, n)) for n in kind.__annotations__ if hasattr(processor, n)],
        [(n, getattr(processor.tokenizer, n, init[n])) for n in _names(kind, *parts) if n in init],
    ]
    known = _KNOWN.get_or_make(processor, dict)
    try:
        key = kind, *parts, marshal.dumps(decisive, 2)  # without references, so equal if these are
    except ValueError:
        key = None
    found = known.get(key)
    if found is not None:
        return marshal.loads(found)  # noqa: S302  # which `_as_bytes` made
    merged = processor._merge_kwargs(declared, tokenizer_init_kwargs, **options)
    made = _as_bytes(merged)
    if key is not None and made is not None:
        if len(known) >= _MOST_CALLS:
            known.clear()
        known[key] = made
    return merged


@cache
def _names(kind: Any, *parts: Any) -> tuple[str, ...]:
    """Returns the names of all options that typed dictionaries declare."""
    declared = (*kind.__annotations__.values(), *parts)
    return tuple({name for value in declared for name in getattr(value, "__annotations__", ())})


def _as_bytes(merged: Any) -> bytes | None:
    """Returns bytes from which `marshal` makes the same options; `None` if it does not."""
    try:
        made = marshal.dumps(merged, 2)
        return made if marshal.loads(made) == merged else None  # noqa: S302  # made right here
    except ValueError:  # such as of a value of another type, or of a comparison of arrays
        return None
