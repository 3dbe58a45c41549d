"""From Automodel's examples to a batch, with the samples that were kept.

Shapes: B samples, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from vlmcollate.automodel.conventions import Example, Variables, conversations_of
from vlmcollate.automodel.fake_image import is_vision
from vlmcollate.automodel.labelling import labels_and_weights
from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, EmptyBatchError, SampleError, SampleTooLongError
from vlmcollate.sample import EncodedSample

Hook = Callable[[dict[str, Tensor], Any], Any]
"""Changes a batch before it is labelled; gets the processor, too."""


def collated(collator: BaseCollator, examples: Sequence[Example]) -> dict[str, Tensor]:
    """The batch of a collator, with the fake images of Automodel's wrappers masked."""
    conversations = conversations_of(examples)
    if not any(example.get("_injected_fake") for example in examples):
        return collator(conversations)
    return collator.stack([sample for _, sample in encoded(collator, examples)])


def encoded(collator: BaseCollator, examples: Sequence[Example]) -> list[tuple[int, EncodedSample]]:
    """The samples that a collator keeps, each with its index.

    Raises:
        SampleError: An example is at fault; it knows its index.
        EmptyBatchError: None is kept.
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
        kept.append((index, masked(sample, collator) if example.get("_injected_fake") else sample))
    if not kept:
        raise EmptyBatchError(
            f"no example is left of {len(examples)}: found all longer than max_length="
            f"{collator.max_length}; raise it, or filter the dataset"
        )
    return kept


def masked(sample: EncodedSample, collator: BaseCollator) -> EncodedSample:
    """The sample with its image attended to nowhere."""
    hidden = is_vision(sample.input_ids, collator.processor)
    mask = sample.tokens["attention_mask"].masked_fill(hidden, 0)
    return attrs.evolve(sample, tokens={**sample.tokens, "attention_mask": mask})


def hooked(
    batch: Mapping[str, Tensor],
    conversations: Sequence[Any],
    processor: Any,
    hook: Hook,
    template_kwargs: Variables,
) -> dict[str, Tensor]:
    """What a hook makes of a batch, with labels found by the template's markers, not shifted.

    Raises:
        ConfigError: The hook returns no batch.
        LabelError: A row has more or fewer turns than its conversation has answers.
    """
    given = {k: v for k, v in batch.items() if k not in ("labels", "loss_weights")}
    found = hook(given, processor)
    if not hasattr(found, "keys") or "input_ids" not in found:
        raise ConfigError(
            f"the hook returns no batch: found {type(found).__name__}, expected the tokenized "
            "batch with input_ids; return the batch from it"
        )
    changed = {key: found[key] for key in found.keys()}  # noqa: SIM118  # a BatchEncoding, too
    changed["labels"], weights = labels_and_weights(
        changed["input_ids"],
        conversations,
        processor,
        template_kwargs=template_kwargs,
        attention_mask=changed.get("attention_mask"),
    )
    if weights is not None:
        changed["loss_weights"] = weights
    return changed
