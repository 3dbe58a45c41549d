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
    shifted_tokens,
    with_bfloat16,
)
from vlmcollate.automodel.encoding import Hook, collated, encoded, hooked
from vlmcollate.errors import MediaMismatchError

_DEFAULT_MERGE_KERNEL = (2, 2)
"""How many rows and columns of patches make one feature."""


def default_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    _post_tokenize_hook: Hook | None = None,
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for any processor that `collator_for` knows.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor.
        max_length: The length of the batch before the shift; the longest sample by default. Longer
            samples are truncated, never inside media.
        drop_overlong: Whether they are left out instead.
        _post_tokenize_hook: Changes the batch before it is labelled, and before the shift; the
            labels are then found by the template's markers in what it returns, up to the last token
            that its `attention_mask` has.
        template_kwargs: Chat template variables, such as `{"enable_thinking": False}`; Automodel
            has no such argument.

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
        return with_bfloat16(collated(collator, examples))
    collator = automodel_collator(
        processor, max_length, drop=drop_overlong, template_kwargs=template_kwargs
    )
    kept = encoded(collator, examples)
    batch = hooked(
        collator.stack([sample for _, sample in kept]),
        [examples[index]["conversation"] for index, _ in kept],
        processor,
        _post_tokenize_hook,
        template_kwargs,
    )
    return shifted_tokens(with_bfloat16(batch))


def qwen2_5_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Qwen2.5-VL; see `default_collate_fn`, but pixels stay float32."""
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    return collated(collator, examples)


def qwen3_omni_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    use_audio_in_video: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Qwen3-Omni: text, images, videos and audio, padded on the right.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor.
        use_audio_in_video: Whether the videos' own audio is used.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; pixels stay float32.
    """
    collator = automodel_collator(
        processor,
        template_kwargs=template_kwargs,
        shift_labels=True,
        use_audio_in_video=use_audio_in_video,
    )
    return collated(collator, examples)


def kimi_vl_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Kimi-VL; with `max_length`, longer samples are left out, the rest padded to it.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor.
        max_length: The length of the batch before the shift.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`; pixels stay float32.
    """
    collator = automodel_collator(
        processor, max_length, drop=True, template_kwargs=template_kwargs, shift_labels=True
    )
    return collated(collator, examples)


def kimi_k25_vl_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Kimi K2.5, with one token for each image feature before the model sees it.

    Returns:
        See `default_collate_fn`; pixels stay float32. With images also `image_grid_hws` (images,
        2).
    """
    collator = automodel_collator(
        processor,
        max_length,
        drop=drop_overlong,
        template_kwargs=template_kwargs,
        shift_labels=True,
    )
    batch = collated(collator, examples)
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
    """Repeats each image's one placeholder as often as it has features.

    Args:
        input_ids: (L,) with one `media_token_id` an image.
        attention_mask: (L,).
        grid_thws: (images, 3), layers, rows and columns in patches.
        media_token_id: The placeholder.
        merge_kernel_size: How many rows and columns of patches make one feature.

    Returns:
        The longer ids and mask, of the dtypes they had.

    Raises:
        MediaMismatchError: There are more or fewer placeholders than images.
    """
    is_media = input_ids == media_token_id
    places = int(is_media.sum())
    if not places:
        return input_ids, attention_mask
    if places != len(grid_thws):
        raise MediaMismatchError(f"{places} placeholder(s) for {len(grid_thws)} image(s)")
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
    """Collates for Nemotron-Parse: a page image, the task prompt, and the answer.

    Args:
        examples: `{"conversation": [...]}` each, with one image.
        processor: The processor.
        task_prompt: What asks for the task; it is not trained.

    Returns:
        See `default_collate_fn`, and `decoder_input_ids` and `decoder_attention_mask` (B, T - 1),
        aligned with the shifted labels.

    Raises:
        ConfigError: The tokenizer lacks a pad token, or one to start the decoder with.
    """
    collator = automodel_collator(processor, task_prompt=task_prompt)
    batch = with_bfloat16(collated(collator, examples))
    return shifted_tokens(batch)


def llava_onevision_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for LLaVA-OneVision-1.5; see `default_collate_fn`, but pixels stay float32."""
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    return collated(collator, examples)
