"""Automodel's collate functions for conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vlmcollate.automodel.labelling import build_labels_from_template
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, MediaMismatchError
from vlmcollate.models import collator_for
from vlmcollate.models.gemma4 import Gemma4Collator
from vlmcollate.padding import PadToLength
from vlmcollate.robust import example_digest
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.stacking import shifted
from vlmcollate.thinking import ThinkingPrefix

Example = Mapping[str, Any]
_TOKENS = (
    "input_ids",
    "attention_mask",
    "labels",
    "loss_weights",
    "mm_token_type_ids",
    "token_type_ids",
    "cross_attention_mask",
)
_PIXELS = ("pixel_values", "pixel_values_videos")


class _Same:
    """A processor as a key: itself and no other, whether or not it can be hashed."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.processor is self.processor

    def __hash__(self) -> int:
        return id(self.processor)


@lru_cache(maxsize=32)
def _cached(key: _Same, options: tuple[tuple[str, Any], ...]) -> BaseCollator:
    return collator_for(key.processor, **dict(options))


def _collator(
    processor: Any, max_length: int | None = None, *, drop: bool = False, **options: Any
) -> BaseCollator:
    """The collator of a processor with Automodel's conventions, made once."""
    if max_length is not None:
        options["max_length"] = max_length
        options["on_overlong"] = "drop" if drop else "truncate"
        options["padding"] = PadToLength(length=max_length)
    return _cached(_Same(processor), tuple(sorted(options.items(), key=lambda item: item[0])))


def _conversations(examples: Sequence[Example]) -> list[Any]:
    return [example["conversation"] for example in examples]


def _with_bfloat16(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    half = {key: batch[key].to(torch.bfloat16) for key in _PIXELS if key in batch}
    return {**batch, **half}


def default_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    _post_tokenize_hook: Callable[[dict[str, Tensor], Any], dict[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Collates for any processor that `collator_for` knows.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor.
        max_length: The length of the batch before the shift; the longest sample by default. Longer
            samples are truncated, never inside media.
        drop_overlong: Whether they are left out instead.
        _post_tokenize_hook: Changes the batch before it is labelled, and before the shift; the
            labels are then found by the template's markers in what it returns.

    Returns:
        The batch: token tensors (B, T - 1), joined media with pixels in bfloat16, and counts.

    Raises:
        CollateError: See `BaseCollator`.
    """
    if _post_tokenize_hook is None:
        collator = _collator(processor, max_length, drop=drop_overlong, shift_labels=True)
        return _with_bfloat16(collator(_conversations(examples)))
    collator = _collator(processor, max_length, drop=drop_overlong)
    if drop_overlong and max_length is not None:
        examples = [e for e in examples if _fits(collator, e["conversation"])]
    batch = collator(_conversations(examples))
    del batch["labels"]
    batch = _with_bfloat16(_post_tokenize_hook(batch, processor))
    batch["labels"] = build_labels_from_template(
        batch["input_ids"], _conversations(examples), processor
    )
    tokens = {key: batch[key] for key in _TOKENS if key in batch}
    return {**batch, **shifted(tokens, axis=1)}


def _fits(collator: BaseCollator, conversation: Any) -> bool:
    whole = _cached(_Same(collator.processor), ())
    return len(whole.encode(conversation)) <= (collator.max_length or 0)


def qwen2_5_collate_fn(examples: Sequence[Example], processor: Any) -> dict[str, Tensor]:
    """Collates for Qwen2.5-VL; see `default_collate_fn`, but pixels stay float32."""
    return _collator(processor, shift_labels=True)(_conversations(examples))


def qwen3_omni_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    use_audio_in_video: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
) -> dict[str, Tensor]:
    """Collates for Qwen3-Omni: text, images, videos and sounds, padded on the right.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor.
        use_audio_in_video: Whether the videos' own sound is heard.

    Returns:
        See `default_collate_fn`; pixels stay float32.
    """
    collator = _collator(processor, shift_labels=True, use_audio_in_video=use_audio_in_video)
    return collator(_conversations(examples))


def kimi_vl_collate_fn(
    examples: Sequence[Example], processor: Any, max_length: int | None = None
) -> dict[str, Tensor]:
    """Collates for Kimi-VL; with `max_length`, longer samples are left out, the rest padded to it.

    Returns:
        See `default_collate_fn`; pixels stay float32.
    """
    collator = _collator(processor, max_length, drop=True, shift_labels=True)
    return collator(_conversations(examples))


def kimi_k25_vl_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None = None,
    drop_overlong: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
) -> dict[str, Tensor]:
    """Collates for Kimi K2.5, with one token for each image feature before the model sees it.

    Returns:
        See `default_collate_fn`; pixels stay float32. With images also `image_grid_hws` (images,
        2).
    """
    collator = _collator(processor, max_length, drop=drop_overlong, shift_labels=True)
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
    collator = _collator(processor, task_prompt=task_prompt)
    batch = _with_bfloat16(collator(_conversations(examples)))
    ahead = ("labels", "loss_weights", "decoder_input_ids", "decoder_attention_mask")
    behind = ("input_ids", "attention_mask")
    return {
        **batch,
        **{key: batch[key][:, 1:].contiguous() for key in ahead if key in batch},
        **{key: batch[key][:, :-1].contiguous() for key in behind},
    }


def phi4_mm_collate_fn(examples: Sequence[Example], processor: Any) -> dict[str, Tensor]:
    """Collates for Phi-4-multimodal with one sound an example.

    Args:
        examples: `{"conversation": [...], "audio": ...}` each; the sound is an array, (array,
            rate), or {"array", "sampling_rate"}, and stands where the first user message spells
            `<|audio_1|>`, or before it.
        processor: The processor.

    Returns:
        See `default_collate_fn`, with `input_mode` and without the keys of images.
    """
    collator = _collator(processor, shift_labels=True)
    heard = [_with_sound(e["conversation"], e["audio"], collator.sampling_rate) for e in examples]
    batch = collator(heard)
    for key in ("input_image_embeds", "image_sizes", "image_attention_mask"):
        batch.pop(key, None)
    if "input_mode" not in batch:
        images, sounds = ("pixel" in "".join(batch), "audio" in "".join(batch))
        batch["input_mode"] = torch.tensor([images + 2 * sounds])
    return batch


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
    keys = [key for key in _TOKENS if key in batch]
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
    examples: Sequence[Example], processor: Any, max_length: int | None = None
) -> dict[str, Tensor]:
    """Collates for the larger Gemma 4 models, which open every answer with a thinking block.

    Args:
        examples: `{"conversation": [...]}` each.
        processor: The processor; for any but Gemma 4's this is `default_collate_fn`.
        max_length: The length with the inserted blocks; longer samples are truncated, never inside
            media.

    Returns:
        See `default_collate_fn`; the inserted tokens have no label.
    """
    options: dict[str, Any] = {}
    if isinstance(_collator(processor), Gemma4Collator):
        options["thinking_prefix"] = ThinkingPrefix()
    collator = _collator(processor, max_length, shift_labels=True, **options)
    return _with_bfloat16(collator(_conversations(examples)))


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
        RuntimeError: From the function it returns: every draw failed, too. Errors of the
            configuration and lack of memory are raised as they come.
    """

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
