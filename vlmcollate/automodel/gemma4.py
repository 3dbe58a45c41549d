"""The thinking block that the larger Gemma 4 models open every answer with.

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
    with_bfloat16,
)
from vlmcollate.automodel.encoding import collated
from vlmcollate.encode.thinking_prefix import ThinkingPrefix
from vlmcollate.errors import ConfigError, MediaMismatchError
from vlmcollate.models.gemma4 import Gemma4Collator
from vlmcollate.padding import PadToLength
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

_GEMMA4_MODEL_TURN = "<|turn>model\n"
_GEMMA4_THINKING_PREFIX = "<|channel>thought\n<channel|>"
_TOKEN_AXIS_KEYS = TOKEN_KEYS
"""The keys of a batch whose second axis runs along the tokens."""
_PREFIX = ThinkingPrefix(text=_GEMMA4_THINKING_PREFIX, after=_GEMMA4_MODEL_TURN)
_MEDIA = ("pixel_values", "pixel_values_videos", "input_features")


def _inject_thinking_prefix_tokens(batch: Any, tokenizer: Any) -> Any:
    """Inserts the thinking block behind every marker of a model's turn, in place.

    Args:
        batch: `input_ids` and other token tensors, (B, T); other keys stay as they are.
        tokenizer: The tokenizer; nothing happens if it does not know the tokens.

    Returns:
        The same batch, its rows as long as the longest has become, padded on the right.
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
    """Inserts the thinking block, as a hook between tokenizing and labels; it edits the batch.

    The labels that follow leave the block untrained. Nothing happens for other tokenizers.

    Args:
        batch: See `_inject_thinking_prefix_tokens`.
        processor: The processor, or its tokenizer.

    Returns:
        The same batch.
    """
    return _inject_thinking_prefix_tokens(batch, getattr(processor, "tokenizer", processor))


def _truncate_token_axis(batch: MutableMapping[str, Any], max_length: int) -> None:
    """Cuts the token tensors of a batch to `max_length`, in place; media stays as it is.

    Args:
        batch: Token tensors (B, T) and media.
        max_length: The maximum T.

    Raises:
        MediaMismatchError: The cut would take media tokens away, or the batch has media and no
            `mm_token_type_ids` that show where they are.
    """
    types = batch.get("mm_token_type_ids")
    held = batch.get("attention_mask")
    if types is not None:
        is_lost = bool((types[:, max_length:] != 0).any())
        problem = "takes media tokens away"
    else:
        is_lost = any(batch.get(key) is not None for key in _MEDIA) and (
            held is None or bool((held[:, max_length:] != 0).any())
        )
        problem = "may take media tokens away: found media but no mm_token_type_ids"
    if batch["input_ids"].shape[1] > max_length and is_lost:
        raise MediaMismatchError(
            f"the cut at max_length={max_length} {problem}, expected every media token to stay "
            "with its features; raise max_length, or take the media out before"
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
    """Collates for the larger Gemma 4 models, which open every answer with a thinking block.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor; for any but Gemma 4's this is `default_collate_fn`.
        max_length: The length with the inserted blocks; longer samples are truncated, never inside
            media.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; the inserted tokens have no label.
    """
    options: dict[str, Any] = {}
    if isinstance(automodel_collator(processor), Gemma4Collator):
        options["thinking_prefix"] = _PREFIX
    collator = automodel_collator(
        processor, max_length, template_kwargs=template_kwargs, shift_labels=True, **options
    )
    return with_bfloat16(collated(collator, examples))
