"""Automodel's batches for DSpark's speculative decoding: a loss mask instead of labels.

Shapes: B samples, T padded tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from vlmcollate.automodel.conventions import (
    Example,
    Variables,
    automodel_collator,
    cast_pixels,
)
from vlmcollate.automodel.encoding import collate_conversations
from vlmcollate.automodel.fake_image import (
    _conversation_has_media,
    inject_fake_image_into_conversation,
)
from vlmcollate.errors import ConfigError
from vlmcollate.sample import IGNORE_INDEX


def dspark_vlm_collate_fn(
    examples: Sequence[Example],
    processor: Any,
    max_length: int,
    inject_fake_image: bool = True,  # noqa: FBT001, FBT002  # Automodel's signature
    *,
    template_kwargs: Variables = None,
) -> dict[str, Tensor]:
    """Collates for DSpark, which shifts the labels itself.

    Args:
        examples: The examples, `{"conversation": [...]}`.
        processor: The processor.
        max_length: The length T of every batch. Longer samples are truncated, but never inside
            media.
        inject_fake_image: Whether the fake image is added to conversations without media. It is
            masked from attention.
        template_kwargs: The variables of the chat template; see `default_collate_fn`.

    Returns:
        See `default_collate_fn`, but with token tensors (B, T), and instead of labels `loss_mask`
        (B, T) int64, 1 for trained tokens and 0 for others.

    Raises:
        ConfigError: `max_length` is `None`.
    """
    if max_length is None:
        raise ConfigError("max_length is missing: DSpark needs batches of one length; set it")
    collator = automodel_collator(processor, max_length, template_kwargs=template_kwargs)
    if inject_fake_image:
        examples = [_with_media(example) for example in examples]
    batch = cast_pixels(collate_conversations(collator, examples))
    batch["loss_mask"] = (batch.pop("labels") != IGNORE_INDEX).long()
    return batch


def _with_media(example: Example) -> Example:
    """Adds the fake image to a conversation without media."""
    conversation = example.get("conversation")
    if not isinstance(conversation, list | tuple) or _conversation_has_media(conversation):
        return example
    faked = inject_fake_image_into_conversation(conversation)
    return {**example, "conversation": faked, "_injected_fake": True}


def build_dspark_vlm_dataloader(
    *,
    dataset_cfg: Any,
    processor: Any,
    batch_size: int,
    max_length: int,
    shuffle: bool,
    num_workers: int = 0,
    distributed: bool = False,
    dp_mesh: Any = None,
    inject_fake_image: bool = True,
) -> DataLoader[Any]:
    """Builds a DataLoader that collates with `dspark_vlm_collate_fn`.

    Args:
        dataset_cfg: A config node whose `instantiate()` returns the dataset.
        processor: The processor.
        batch_size: The number of samples in a batch.
        max_length: The length of every batch.
        shuffle: Whether to shuffle the samples.
        num_workers: The number of worker processes.
        distributed: Whether each rank draws its share of the samples.
        dp_mesh: The device mesh that determines the ranks, by default the default process group.
        inject_fake_image: See `dspark_vlm_collate_fn`.

    Raises:
        ConfigError: `dp_mesh` is given without `distributed`.
    """
    if dp_mesh is not None and not distributed:
        raise ConfigError("dp_mesh has no effect with distributed=False; set distributed=True")
    dataset = dataset_cfg.instantiate()
    sampler: DistributedSampler[Any] | None = None
    if distributed:
        ranks, rank = (dp_mesh.size(), dp_mesh.get_local_rank()) if dp_mesh else (None, None)
        sampler = DistributedSampler(dataset, num_replicas=ranks, rank=rank, shuffle=shuffle)
    forked = "forkserver" if num_workers and torch.cuda.is_available() else None
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        shuffle=shuffle and sampler is None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        multiprocessing_context=forked,  # a fork would inherit the CUDA context
        collate_fn=functools.partial(
            dspark_vlm_collate_fn,
            processor=processor,
            max_length=max_length,
            inject_fake_image=inject_fake_image,
        ),
    )
