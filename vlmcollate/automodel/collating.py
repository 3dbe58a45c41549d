"""Automodel's collate functions for conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vlmcollate.automodel.conventions import (
    TOKEN_KEYS,
    automodel_collator,
    shifted_tokens,
    with_bfloat16,
)
from vlmcollate.automodel.labelling import labels_and_weights
from vlmcollate.errors import ConfigError, MediaMismatchError
from vlmcollate.models.gemma4 import Gemma4Collator
from vlmcollate.padding import PadToLength
from vlmcollate.robust import example_digest
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.thinking import ThinkingPrefix

Example = Mapping[str, Any]
Variables = Mapping[str, Any] | None


def _conversations(examples: Sequence[Example]) -> list[Any]:
    return [example["conversation"] for example in examples]


def default_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    _post_tokenize_hook: Callable[[dict[str, Tensor], Any], dict[str, Tensor]] | None = None,
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
        return with_bfloat16(collator(_conversations(examples)))
    collator = automodel_collator(
        processor, max_length, drop=drop_overlong, template_kwargs=template_kwargs
    )
    if drop_overlong and max_length is not None:
        whole = automodel_collator(processor, template_kwargs=template_kwargs)
        lengths = [len(whole.encode(example["conversation"])) for example in examples]
        examples = [e for e, n in zip(examples, lengths, strict=True) if n <= max_length]
    batch = collator(_conversations(examples))
    for key in ("labels", "loss_weights"):
        batch.pop(key, None)
    batch = with_bfloat16(_post_tokenize_hook(batch, processor))
    batch["labels"], weights = labels_and_weights(
        batch["input_ids"],
        _conversations(examples),
        processor,
        template_kwargs=template_kwargs,
        attention_mask=batch.get("attention_mask"),
    )
    if weights is not None:
        batch["loss_weights"] = weights
    return shifted_tokens(batch)


def qwen2_5_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Qwen2.5-VL; see `default_collate_fn`, but pixels stay float32."""
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    return collator(_conversations(examples))


def qwen3_omni_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    use_audio_in_video: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for Qwen3-Omni: text, images, videos and sounds, padded on the right.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor.
        use_audio_in_video: Whether the videos' own sound is heard.
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
    return collator(_conversations(examples))


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
    return collator(_conversations(examples))


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
    batch = collator(_conversations(examples))
    if "grid_thws" in batch:
        batch["image_grid_hws"] = batch["grid_thws"][:, 1:].contiguous()
    return batch


def _expand_image_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    grid_thws: Tensor,
    media_token_id: int,
    merge_kernel_size: tuple[int, int] = (2, 2),
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
    batch = with_bfloat16(collator(_conversations(examples)))
    return shifted_tokens(batch)


def phi4_mm_collate_fn(
    examples: Sequence[Example], processor: Any, *, template_kwargs: Variables = None
) -> dict[str, Tensor]:
    """Collates for Phi-4-multimodal with one sound an example.

    Args:
        examples: `{"conversation": [...], "audio": ...}` each; the sound is an array, (array,
            rate), or {"array", "sampling_rate"}, and stands where the first user message spells
            `<|audio_1|>`, or before it. Pictures in the conversation are kept.
        processor: The processor.
        template_kwargs: Chat template variables; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`, with `input_mode`, (1,): 2, or 3 where there are pictures.
    """
    collator = automodel_collator(processor, template_kwargs=template_kwargs, shift_labels=True)
    heard = [_with_sound(e["conversation"], e["audio"], collator.sampling_rate) for e in examples]
    batch = collator(heard)
    sees = "n_images_per_sample" in batch
    return {**batch, "input_mode": torch.tensor([3 if sees else 2])}


def _with_sound(conversation: Any, sound: Any, rate: int | None) -> list[Any]:
    """The conversation with the sound as a part of its first user message."""
    if not isinstance(sound, tuple | list | Mapping):
        sound = (sound, rate)  # Automodel takes an array alone for one at the model's rate
    part = {"type": "audio", "audio": tuple(sound) if isinstance(sound, list) else sound}
    messages = [dict(message) for message in conversation]
    first = next((m for m in messages if m.get("role") == "user"), None)
    if first is None:
        raise ConfigError("an example with a sound needs a user message for it")
    content = first["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    for at, piece in enumerate(parts):
        text = piece.get("text") if isinstance(piece, Mapping) else None
        if isinstance(text, str) and "<|audio_1|>" in text:
            before, after = text.split("<|audio_1|>", 1)
            texts = [{"type": "text", "text": t} for t in (before, after)]
            parts[at : at + 1] = [*(texts[:1] if before else []), part, *texts[1:]]
            break
    else:
        parts.insert(0, part)
    first["content"] = parts
    return messages


def _inject_thinking_prefix_tokens(batch: dict[str, Tensor], tokenizer: Any) -> dict[str, Tensor]:
    """Inserts Gemma 4's thinking block behind every marker of a model's turn.

    Args:
        batch: `input_ids` and other token tensors, (B, T); other keys stay as they are.
        tokenizer: The tokenizer; nothing happens where it does not know the tokens.

    Returns:
        The batch with rows as long as the longest has become, padded on the right.
    """
    prefix = ThinkingPrefix()
    try:
        prefix.check(tokenizer)
    except ConfigError:
        return batch
    keys = [key for key in TOKEN_KEYS if key in batch]
    rows = []
    for row in range(len(batch["input_ids"])):
        tokens = {key: batch[key][row] for key in keys}
        nobody = torch.full_like(tokens["input_ids"], -1)
        sample = EncodedSample(tokens=tokens, message_ids=nobody, media_ids=nobody)
        rows.append(prefix(sample, tokenizer).tokens)
    pad = tokenizer.pad_token_id or 0
    fill = {"input_ids": pad, "labels": IGNORE_INDEX}
    longest = max(len(row["input_ids"]) for row in rows)
    return {**batch, **PadToLength(length=longest)(rows, fill)}


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
        options["thinking_prefix"] = ThinkingPrefix()
    collator = automodel_collator(
        processor, max_length, template_kwargs=template_kwargs, shift_labels=True, **options
    )
    return with_bfloat16(collator(_conversations(examples)))


def make_robust_collate(
    dataset: Any, collate_fn: Callable[[list[Any]], Any], max_retries: int = 10
) -> Callable[[Sequence[Any]], Any]:
    """Has a batch that fails drawn again, whole, from the dataset.

    Args:
        dataset: A map-style dataset.
        collate_fn: Collates a list of examples.
        max_retries: How many draws are tried.

    Returns:
        The function that does so. Which samples it draws follows from those that failed, so that
        every worker and every rerun draws the same.

    Raises:
        ConfigError: The dataset is empty.
        RuntimeError: From the function it returns: every draw failed, too. Errors of the
            configuration and lack of memory are raised as they come.
    """
    if not len(dataset):
        raise ConfigError("the dataset is empty, so nothing can be drawn from it")

    def collate(examples: Sequence[Any]) -> Any:
        batch, last = list(examples), None
        for attempt in range(max_retries + 1):
            try:
                return collate_fn(batch)
            except (ConfigError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001  # whatever a user's function raises
                last = error
            batch = [dataset[_draw(e, attempt, i, dataset)] for i, e in enumerate(examples)]
        raise RuntimeError(f"{max_retries} batches failed in a row; the last: {last}") from last

    return collate


def _draw(example: Any, attempt: int, place: int, dataset: Any) -> int:
    digest = hashlib.blake2b(f"{attempt} {place} ".encode(), digest_size=8)
    example_digest(example, digest)
    return int.from_bytes(digest.digest(), "big") % len(dataset)


COLLATE_FNS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "Qwen2_5_VLProcessor": qwen2_5_collate_fn,
    "Qwen3OmniMoeProcessor": qwen3_omni_collate_fn,
    "KimiVLProcessor": kimi_vl_collate_fn,
    "KimiK25Processor": kimi_k25_vl_collate_fn,
    "NemotronParseProcessor": nemotron_parse_collate_fn,
    "NemotronH_Nano_Omni_Reasoning_V3Processor": default_collate_fn,
    "LlavaOnevisionProcessor": default_collate_fn,
    "default": default_collate_fn,
}
"""From the name of a processor's class to its collate function."""
