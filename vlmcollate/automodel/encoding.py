"""Encodes Automodel's examples, and applies its hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.automodel.conventions import Example, Variables, conversations_of
from vlmcollate.automodel.fake_image import is_vision_token
from vlmcollate.automodel.labelling import label_batch
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, EmptyBatchError, SampleError, SampleTooLongError
from vlmcollate.sample import EncodedSample

Hook = Callable[[dict[str, Tensor], Any], Any]
"""A function of a tokenized batch and the processor that changes the batch before labelling."""


def collate_conversations(collator: BaseCollator, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Collates conversations, and masks fake images of the wrappers."""
    conversations = conversations_of(examples)
    if not any(example.get("_injected_fake") for example in examples):
        return collator(conversations)
    return collator.stack([sample for _, sample in encode_kept(collator, examples)])


def encode_kept(
    collator: BaseCollator, examples: Sequence[Example]
) -> list[tuple[int, EncodedSample]]:
    """Encodes the examples; returns the kept samples with their indices.

    Raises:
        SampleError: An example is invalid; the error has its index.
        EmptyBatchError: All examples are dropped.
    """
    kept = []
    for index, (example, messages) in enumerate(
        zip(examples, conversations_of(examples), strict=True)
    ):
        try:
            sample = collator.encode(messages)
        except SampleError as error:
            if isinstance(error, SampleTooLongError) and collator.on_overlong == "drop":
                continue
            raise error.at(index=index) from error.__cause__
        kept.append(
            (index, mask_image(sample, collator) if example.get("_injected_fake") else sample)
        )
    if not kept:
        raise EmptyBatchError(
            f"all {len(examples)} samples are longer than max_length={collator.max_length}; raise "
            "it, or filter the dataset"
        )
    return kept


def mask_image(sample: EncodedSample, collator: BaseCollator) -> EncodedSample:
    """Masks the image of a sample from attention."""
    hidden = is_vision_token(sample.input_ids, collator.processor)
    mask = sample.tokens["attention_mask"].masked_fill(hidden, 0)
    return attrs.evolve(sample, tokens={**sample.tokens, "attention_mask": mask})


def apply_hook(
    batch: Mapping[str, Tensor],
    conversations: Sequence[Any],
    processor: Any,
    hook: Hook,
    template_kwargs: Variables,
) -> dict[str, Tensor]:
    """Applies a hook to a batch, and labels the result by markers.

    Args:
        batch: The tokenized batch; its labels and weights are ignored.
        conversations: The conversation of each row.
        processor: The processor.
        hook: The hook.
        template_kwargs: The variables of the chat template.

    Returns:
        The batch of the hook with labels that are not shifted.

    Raises:
        ConfigError: The hook does not return a batch.
        LabelError: The number of turns in a row differs from the number of answers.
    """
    unlabelled = {k: v for k, v in batch.items() if k not in ("labels", "loss_weights")}
    found = hook(unlabelled, processor)
    if not hasattr(found, "keys") or "input_ids" not in found:
        raise ConfigError(
            f"the result of the hook is invalid: found {type(found).__name__}, expected a batch "
            "with input_ids; return the changed batch"
        )
    changed = {key: found[key] for key in found.keys()}  # noqa: SIM118  # it may be a BatchEncoding
    changed["labels"], weights = label_batch(
        changed["input_ids"],
        conversations,
        processor,
        template_kwargs=template_kwargs,
        attention_mask=changed.get("attention_mask"),
    )
    if weights is not None:
        changed["loss_weights"] = weights
    return changed
