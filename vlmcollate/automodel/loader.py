"""Packs for a configuration without `packed_sequence`, whose loader uses its `collate_fn`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmcollate.automodel.contracts import PackedMaskType, _DefaultPackedSequenceContract
from vlmcollate.automodel.datasets import PreTokenizedDatasetWrapper
from vlmcollate.automodel.packed_dataset import PackedDatasetWrapper
from vlmcollate.automodel.packing import neat_pack_dataset_vlm
from vlmcollate.automodel.packs import (
    neat_packed_vlm_collater,
    packed_sequence_thd_vlm_collater,
)
from vlmcollate.errors import ConfigError


def make_packed_dataset(
    dataset: Any,
    processor: Any,
    pack_size: int,
    samples: Mapping[str, Any] | None = None,
    packs: Mapping[str, Any] | None = None,
) -> PackedDatasetWrapper:
    """Makes packs, for a configuration without `packed_sequence`.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`, or a node
            `{"_target_": ..., ...}` whose target returns one.
        processor: The processor, or a node `{"_target_": ..., ...}` whose target returns it.
        pack_size: The maximum number of tokens in a pack.
        samples: The options of `PreTokenizedDatasetWrapper`, such as `max_length`.
        packs: Further options of `neat_pack_dataset_vlm`, such as `drop_long_samples`.

    Returns:
        The dataset of packs.

    Raises:
        ConfigError: An option is unknown, out of range, or contradicts another.
    """
    examples = _instantiate("dataset", dataset)
    model_processor = _instantiate("processor", processor)
    try:
        encoded = PreTokenizedDatasetWrapper(examples, model_processor, **(samples or {}))
        options = {**_padding(model_processor), **(packs or {})}
        return neat_pack_dataset_vlm(encoded, pack_size, **options)
    except TypeError as error:
        raise ConfigError(
            f"an option of samples or packs is unknown: found {error}, expected those of "
            "PreTokenizedDatasetWrapper and neat_pack_dataset_vlm; remove it"
        ) from error


def _instantiate(name: str, node: Any) -> Any:
    """Calls the target of a configuration node; returns other objects."""
    if not (isinstance(node, Mapping) and "_target_" in node):
        return node
    options = dict(node)
    target = options.pop("_target_")
    if not callable(target):
        raise ConfigError(
            f"{name}._target_ is not callable: found {target!r}, expected a function or a class; "
            "write its full path"
        )
    return target(**options)


def _padding(processor: Any) -> dict[str, int]:
    return {"padding_idx": processor.tokenizer.pad_token_id or 0}


def packed_collate_fn(
    examples: Sequence[Mapping[str, Any]],
    processor: Any,
    max_length: int | None = None,
    packed_mask_type: PackedMaskType | None = None,
    attn_implementation: str | None = None,
    packing_format: str = "neat",
) -> dict[str, Any]:
    """Collates packs, with the arguments of a configured `collate_fn`.

    Args:
        examples: The packs of `make_packed_dataset`.
        processor: The processor, for its padding token.
        max_length: The length of every batch, by default that of its longest pack.
        packed_mask_type: The mask that the model needs; see `neat_packed_vlm_collater`.
        attn_implementation: The name of the attention, instead of `packed_mask_type`; see
            `neat_packed_vlm_collater`.
        packing_format: `"neat"`, or `"thd"` for Transformer Engine.

    Returns:
        See `neat_packed_vlm_collater` and `packed_sequence_thd_vlm_collater`.

    Raises:
        ConfigError: Two options contradict each other.
    """
    options: dict[str, Any] = {**_padding(processor), "max_length": max_length}
    masks = [packed_mask_type, attn_implementation]
    if packing_format not in ("neat", "thd"):
        raise ConfigError(
            f"packing_format is unknown: found {packing_format!r}, expected 'neat' or 'thd'"
        )
    if sum(value is not None for value in masks) > (packing_format == "neat"):
        raise ConfigError(
            f"packed_mask_type={packed_mask_type!r}, attn_implementation={attn_implementation!r} "
            f"and packing_format={packing_format!r} contradict each other; set one of them"
        )
    if packing_format == "thd":
        return packed_sequence_thd_vlm_collater(examples, **options)
    if packed_mask_type is not None:
        options["packing"] = _DefaultPackedSequenceContract(packed_mask_type)
    return neat_packed_vlm_collater(examples, attn_implementation=attn_implementation, **options)
