"""Automodel's collate functions for conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.automodel.conventions import (
    Example,
    Variables,
    automodel_collator,
    cast_pixels,
    shift_tokens,
)
from vlmcollate.automodel.encoding import Hook, apply_hook, collate_conversations, encode_kept
from vlmcollate.errors import MediaMismatchError

_DEFAULT_MERGE_KERNEL = (2, 2)
"""The rows and columns of patches that are merged into one feature."""


def default_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    _post_tokenize_hook: Hook | None = None,
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for any processor that `collator_for` supports.

    Args:
        examples: The examples, `{"conversation": [...]}`.
        processor: The processor.
        max_length: The length of the batch before the shift, by default that of its longest sample.
            Longer samples are truncated, but never inside media.
        drop_overlong: Whether longer samples are dropped or truncated.
        _post_tokenize_hook: A function that changes the batch before it is labelled and shifted.
            Labels are then found by the template's markers in the result, up to the last token of
            its `attention_mask`.
        template_kwargs: The variables of the chat template, such as `{"enable_thinking": False}`;
            not an argument of Automodel's function.

    Returns:
        The batch: token tensors (B, T - 1), joined media with pixels in bfloat16, and counts.

    Raises:
        CollateError: See `BaseCollator`.
    """
    collator = automodel_collator(
        processor,
        max_length,
        drop=drop_overlong,
        template_kwargs=template_kwargs,
        shift_labels=True,
    )
    if _post_tokenize_hook is None:
        return cast_pixels(collate_conversations(collator, examples))
    collator = automodel_collator(
        processor, max_length, drop=drop_overlong, template_kwargs=template_kwargs
    )
    kept = encode_kept(collator, examples)
    batch = apply_hook(
        collator.stack([sample for _, sample in kept]),
        [examples[index]["conversation"] for index, _ in kept],
        processor,
        _post_tokenize_hook,
        template_kwargs,
    )
    return shift_tokens(cast_pixels(batch))


def qwen2_5_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Qwen2.5-VL, with pixels in float32.

    See `default_collate_fn`.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    return collate_conversations(collator, examples)


def qwen3_omni_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    use_audio_in_video: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Qwen3-Omni: text, images, videos and audio.

    Args:
        examples: The examples, `{"conversation": [...]}`.
        processor: The processor.
        use_audio_in_video: Whether the audio tracks of the videos are used.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; pixels stay float32.
    """
    collator = automodel_collator(
        processor,
        template_kwargs=template_kwargs,
        shift_labels=True,
        use_audio_in_video=use_audio_in_video,
    )
    return collate_conversations(collator, examples)


def kimi_vl_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Kimi-VL; samples longer than `max_length` are dropped.

    Args:
        examples: The examples, `{"conversation": [...]}`.
        processor: The processor.
        max_length: The length of the batch before the shift, by default that of its longest sample.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; pixels stay float32.
    """
    collator = automodel_collator(
        processor, max_length, drop=True, template_kwargs=template_kwargs, shift_labels=True
    )
    return collate_conversations(collator, examples)


def kimi_k25_vl_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Kimi K2.5, with one token per image feature.

    Args:
        examples: The examples, `{"conversation": [...]}`.
        processor: The processor.
        max_length: The length of the batch before the shift, by default that of its longest sample.
        drop_overlong: Whether longer samples are dropped or truncated.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; pixels stay float32. With images, also `image_grid_hws`
        (images, 2).
    """
    collator = automodel_collator(
        processor,
        max_length,
        drop=drop_overlong,
        template_kwargs=template_kwargs,
        shift_labels=True,
    )
    batch = collate_conversations(collator, examples)
    if "grid_thws" in batch:
        batch["image_grid_hws"] = batch["grid_thws"][:, 1:].contiguous()
    return batch


def _expand_image_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    grid_thws: Tensor,
    media_token_id: int,
    merge_kernel_size: tuple[int, int] = _DEFAULT_MERGE_KERNEL,
) -> tuple[Tensor, Tensor]:
    """Expands the placeholder of each image to one token per feature.

    Args:
        input_ids: The token ids, (L,), with one `media_token_id` per image.
        attention_mask: The attention mask, (L,).
        grid_thws: The grid of patches of each image, (images, 3): frames, rows and columns.
        media_token_id: The id of the placeholder.
        merge_kernel_size: The rows and columns of patches that are merged into one feature.

    Returns:
        The expanded ids and mask, in their dtypes.

    Raises:
        MediaMismatchError: The number of placeholders differs from the number of images.
    """
    is_media = input_ids == media_token_id
    count = int(is_media.sum())
    if not count:
        return input_ids, attention_mask
    if count != len(grid_thws):
        raise MediaMismatchError(
            f"the number of placeholders is wrong: found {count}, expected {len(grid_thws)}, one "
            "per image; pass one row of grid_thws per placeholder"
        )
    rows, columns = merge_kernel_size
    repeats = torch.ones_like(input_ids)
    repeats[is_media] = ((grid_thws[:, 1] // rows) * (grid_thws[:, 2] // columns)).to(repeats.dtype)
    both = torch.stack([input_ids, attention_mask.to(input_ids.dtype)])
    ids, mask = both.repeat_interleave(repeats, dim=1)
    return ids, mask.to(attention_mask.dtype)


def nemotron_parse_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    task_prompt: str = "</s><s><predict_bbox><predict_classes><output_markdown>",
) -> dict[str, Tensor]:
    """Collates for Nemotron-Parse: a page, a task prompt and an answer.

    Args:
        examples: The examples, `{"conversation": [...]}`, with one image each.
        processor: The processor.
        task_prompt: The text that selects the task; it is not trained.

    Returns:
        See `default_collate_fn`, and `decoder_input_ids` and `decoder_attention_mask` (B, T - 1),
        aligned with the shifted labels.

    Raises:
        ConfigError: The tokenizer has no pad token, or no token to start the decoder with.
    """
    collator = automodel_collator(processor, task_prompt=task_prompt)
    batch = cast_pixels(collate_conversations(collator, examples))
    return shift_tokens(batch)


def llava_onevision_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for LLaVA-OneVision-1.5, with pixels in float32.

    See `default_collate_fn`.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    return collate_conversations(collator, examples)
