"""Inserts the thinking block with which the larger Gemma 4 models start every answer.

Shapes: B samples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.automodel.conventions import (
    TOKEN_KEYS,
    Example,
    Variables,
    automodel_collator,
    cast_pixels,
)
from vlmcollate.automodel.encoding import collate_conversations
from vlmcollate.encode.thinking_prefix import ThinkingPrefix
from vlmcollate.errors import ConfigError, MediaMismatchError
from vlmcollate.models.gemma4 import Gemma4Collator
from vlmcollate.padding import PadToLength
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

_GEMMA4_MODEL_TURN = "<|turn>model\n"
_GEMMA4_THINKING_PREFIX = "<|channel>thought\n<channel|>"
_TOKEN_AXIS_KEYS = TOKEN_KEYS
"""The keys of a batch whose second axis is that of the tokens."""
_PREFIX = ThinkingPrefix(text=_GEMMA4_THINKING_PREFIX, after=_GEMMA4_MODEL_TURN)
_MEDIA = ("pixel_values", "pixel_values_videos", "input_features")


def _inject_thinking_prefix_tokens(batch: Any, tokenizer: Any) -> Any:
    """Inserts the thinking block after the header of every answer, in place.

    Args:
        batch: The batch, with `input_ids` and other token tensors, (B, T). Other keys do not
            change.
        tokenizer: The tokenizer. If its vocabulary has no such tokens, the batch does not change.

    Returns:
        The same batch, padded on the right to its longest row.
    """
    try:
        _PREFIX.check(tokenizer)
    except ConfigError:
        return batch
    keys = [key for key in TOKEN_KEYS if key in batch]
    rows = []
    for row in range(len(batch["input_ids"])):
        tokens = {key: batch[key][row] for key in keys}
        unknown = torch.full_like(tokens["input_ids"], -1)
        sample = EncodedSample(tokens=tokens, message_ids=unknown, media_ids=unknown)
        rows.append(_PREFIX(sample, tokenizer).tokens)
    fill = {"input_ids": tokenizer.pad_token_id or 0, "labels": IGNORE_INDEX}
    longest = max(len(row["input_ids"]) for row in rows)
    for key, value in PadToLength(length=longest)(rows, fill).items():
        batch[key] = value
    return batch


def gemma4_inject_thinking_prefix(batch: Any, processor: Any) -> Any:
    """Inserts the thinking block in place, as a hook before labelling.

    The block is not trained. With the tokenizers of other models, the batch does not change.

    Args:
        batch: The batch, with `input_ids` and other token tensors, (B, T).
        processor: The processor, or its tokenizer.

    Returns:
        The same batch.
    """
    return _inject_thinking_prefix_tokens(batch, getattr(processor, "tokenizer", processor))


def _truncate_token_axis(batch: MutableMapping[str, Any], max_length: int) -> None:
    """Truncates the token tensors of a batch, but not its media, in place.

    Args:
        batch: The batch, with token tensors (B, T) and media.
        max_length: The maximum T.

    Raises:
        MediaMismatchError: Truncation would remove media tokens, or the batch has media and no
            `mm_token_type_ids` to locate their tokens.
    """
    types = batch.get("mm_token_type_ids")
    mask = batch.get("attention_mask")
    if types is not None:
        is_lost = bool((types[:, max_length:] != 0).any())
        problem = "removes media tokens"
    else:
        is_lost = any(batch.get(key) is not None for key in _MEDIA) and (
            mask is None or bool((mask[:, max_length:] != 0).any())
        )
        problem = "may remove media tokens: found media but no mm_token_type_ids"
    if batch["input_ids"].shape[1] > max_length and is_lost:
        raise MediaMismatchError(
            f"truncation to max_length={max_length} {problem}, expected to keep the tokens of all "
            "media; raise max_length, or remove the media first"
        )
    for key in _TOKEN_AXIS_KEYS:
        value = batch.get(key)
        if isinstance(value, Tensor) and value.dim() > 1 and value.shape[1] > max_length:
            batch[key] = value[:, :max_length]


def gemma4_prefix_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Gemma 4, with a thinking block before every answer.

    Args:
        examples: The examples, `{"conversation": [...]}`.
        processor: The processor. For other families, the function equals `default_collate_fn`.
        max_length: The length of the batch with the inserted blocks, before the shift. Longer
            samples are truncated, but never inside media.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; the inserted tokens have no label.
    """
    options: dict[str, Any] = {}
    if isinstance(automodel_collator(processor), Gemma4Collator):
        options["thinking_prefix"] = _PREFIX
    collator = automodel_collator(
        processor, max_length, template_kwargs=template_kwargs, shift_labels=True, **options
    )
    return cast_pixels(collate_conversations(collator, examples))
