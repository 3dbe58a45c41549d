"""Any other processor with a chat template.

Shapes: M media items.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs
import torch
from PIL import Image
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.media import Concatenate, Join, PadAndConcatenate, Stack

_PROCESSOR_ERRORS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)
_SIZES = (((64, 48),), ((200, 120), (96, 160)), ((48, 200),))


@attrs.frozen(kw_only=True, eq=False)
class DefaultCollator(BaseCollator):
    """Collates for a processor without a family of its own.

    How its media keys join is learned from the processor itself: a few small pictures are
    processed one by one and as a batch, and for each key the rule is kept that makes the batch out
    of the single ones. A key that no rule explains is refused. `register` a subclass of
    `BaseCollator` that declares them where that happens.
    """

    @cached_property
    def media_joins(self) -> Mapping[str, Join]:  # type: ignore[override]  # learned, not declared
        """How each media key becomes one tensor of the batch."""
        return _facts(self)[0]

    @cached_property
    def token_type_key(self) -> str | None:  # type: ignore[override]  # learned, not declared
        """The key of the token types, where the processor returns one."""
        return _facts(self)[1]


_KNOWN: weakref.WeakKeyDictionary[Any, tuple[dict[str, Join], str | None]]
_KNOWN = weakref.WeakKeyDictionary()


def _facts(collator: DefaultCollator) -> tuple[dict[str, Join], str | None]:
    if collator.processor not in _KNOWN:
        _KNOWN[collator.processor] = _learn(collator)
    return _KNOWN[collator.processor]


def _learn(collator: DefaultCollator) -> tuple[dict[str, Join], str | None]:
    placeholder = collator.placeholders.get("image")
    if placeholder is None or getattr(collator.processor, "image_processor", None) is None:
        return {}, None
    samples = [
        [Image.new("RGB", size, (90, 40 * i, 7)) for i, size in enumerate(s)] for s in _SIZES
    ]
    texts = [placeholder * len(images) for images in samples]

    def call(at: slice) -> dict[str, Any]:
        try:
            output = collator.processor(
                text=texts[at], images=samples[at], padding=True, return_tensors="pt"
            )
        except _PROCESSOR_ERRORS as error:
            raise ConfigError(
                f"{type(collator.processor).__name__} does not take pictures as the default "
                f"collator passes them, so it needs a collator of its own: {error}"
            ) from error
        return dict(output)

    singles, batch = [call(slice(i, i + 1)) for i in range(len(samples))], call(slice(None))
    types = [key for key in ("mm_token_type_ids", "token_type_ids") if key in batch]
    text_keys = {"input_ids", "attention_mask", *types}
    along_tokens = _along_tokens(batch, text_keys)
    joins = {
        key: _join_of(key, [single[key] for single in singles], batch[key], collator)
        for key in batch
        if key not in text_keys
    }
    if along_tokens & joins.keys():
        raise ConfigError(
            f"{type(collator.processor).__name__} returns {sorted(along_tokens)} along the tokens, "
            "which the default collator cannot pad; it needs a collator of its own"
        )
    return joins, (types[0] if types else None)


def _along_tokens(batch: Mapping[str, Any], known: set[str]) -> set[str]:
    length = batch["input_ids"].shape[1]
    return {
        key
        for key, value in batch.items()
        if key not in known and isinstance(value, Tensor) and value.shape[1:2] == (length,)
    }


def _join_of(key: str, singles: list[Any], batch: Any, collator: DefaultCollator) -> Join:
    for join in (Concatenate(), PadAndConcatenate(), PadAndConcatenate(value=-1), Stack()):
        try:
            joined = join(singles, key=key)
        except (ValueError, RuntimeError, TypeError, AttributeError):
            continue  # this rule does not fit the shapes
        if isinstance(batch, Tensor) and torch.equal(joined, batch):
            return join
    raise ConfigError(
        f"no rule makes the batch's {key!r} out of single samples' for "
        f"{type(collator.processor).__name__}; declare it in a subclass's media_joins"
    )
