"""Packs in a configuration whose loader takes no collate function while it packs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmcollate.automodel.contracts import PackedMaskType, _DefaultPackedSequenceContract
from vlmcollate.automodel.datasets import PreTokenizedDatasetWrapper
from vlmcollate.automodel.packing import PackedDatasetWrapper, neat_pack_dataset_vlm
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
    """Makes packs, as the `dataset` of a configuration without `packed_sequence`.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`, or `{"_target_": ..., ...}` for
            what makes one.
        processor: The processor, or `{"_target_": ..., ...}` for what makes it.
        pack_size: The maximum number of tokens of a pack.
        samples: Options of `PreTokenizedDatasetWrapper`, such as `max_length`.
        packs: Further options of `neat_pack_dataset_vlm`, such as `drop_long_samples`.

    Raises:
        ConfigError: An option is unknown, or does not fit.
    """
    made, model_processor = _made("dataset", dataset), _made("processor", processor)
    try:
        encoded = PreTokenizedDatasetWrapper(made, model_processor, **(samples or {}))
        options = {**_padding(model_processor), **(packs or {})}
        return neat_pack_dataset_vlm(encoded, pack_size, **options)
    except TypeError as error:
        raise ConfigError(
            f"an option of samples or packs is unknown: found {error}, expected those of "
            "PreTokenizedDatasetWrapper and neat_pack_dataset_vlm; remove it"
        ) from error


def _made(name: str, given: Any) -> Any:
    """What a node of the configuration makes, or the object itself."""
    if not (isinstance(given, Mapping) and "_target_" in given):
        return given
    options = dict(given)
    target = options.pop("_target_")
    if not callable(target):
        raise ConfigError(
            f"{name}._target_ is not callable: found {target!r}, expected a function or a class; "
            "spell its full path"
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
    """Collates packs, with the arguments that a configuration's `collate_fn` gets.

    Args:
        examples: What `make_packed_dataset` gives.
        processor: The processor, whose padding token is taken.
        max_length: The length of every batch; the longest pack by default.
        packed_mask_type: What the model asks for; see `neat_packed_vlm_collater`.
        attn_implementation: The attention by name instead; see there.
        packing_format: `"neat"`, or `"thd"` for Transformer Engine.

    Raises:
        ConfigError: Two options contradict each other.
    """
    options: dict[str, Any] = {**_padding(processor), "max_length": max_length}
    given = [packed_mask_type, attn_implementation]
    if packing_format not in ("neat", "thd"):
        raise ConfigError(
            f"packing_format is unknown: found {packing_format!r}, expected 'neat' or 'thd'"
        )
    if sum(value is not None for value in given) > (packing_format == "neat"):
        raise ConfigError(
            f"packed_mask_type={packed_mask_type!r}, attn_implementation={attn_implementation!r} "
            f"and packing_format={packing_format!r} contradict each other; set one of them"
        )
    if packing_format == "thd":
        return packed_sequence_thd_vlm_collater(examples, **options)
    if packed_mask_type is not None:
        options["packing"] = _DefaultPackedSequenceContract(packed_mask_type)
    return neat_packed_vlm_collater(examples, attn_implementation=attn_implementation, **options)
