"""Plans packs by the true lengths of the samples.

Shapes: N samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.automodel.datasets import PreTokenizedDatasetWrapper
from vlmcollate.automodel.packed_dataset import PackedDatasetWrapper, check_wrapper
from vlmcollate.automodel.retrying import replacement_indices
from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.packing import plan_packs
from vlmcollate.validators import check_count, one_of

Ints = npt.NDArray[np.int64]
_LOG = logging.getLogger(__name__)


def neat_pack_dataset_vlm(
    dataset: Any,
    pack_size: int,
    padding_idx: int = 0,
    drop_long_samples: bool = False,  # noqa: FBT001, FBT002  # Automodel's signature
    max_packs: int | None = None,
    get_rope_index: Callable[..., Any] | None = None,
    ds_raw: Any = None,
    packing_ratio: float = 1.0,
    processor: Any = None,
    balance_media_tokens: bool = True,  # noqa: FBT001, FBT002  # Automodel's signature
    sequence_alignment: int = 1,
) -> PackedDatasetWrapper:
    """Plans packs by the true lengths of the samples.

    The tokens are counted without decoding media.

    Args:
        dataset: A `PreTokenizedDatasetWrapper` of this library.
        pack_size: The maximum number of tokens in a pack.
        padding_idx: The id of the padding token.
        drop_long_samples: Whether samples longer than a pack are dropped with a warning in the
            log, or raise an error.
        max_packs: The maximum number of packs; further ones are dropped.
        get_rope_index: The model's function for positions; see `PackedDatasetWrapper`.
        ds_raw: The dataset inside `dataset`, which is the default.
        packing_ratio: The share of `pack_size` that several samples together may fill, above 0 and
            at most 1.
        processor: The processor of `dataset`, which is the default.
        balance_media_tokens: Whether samples with media are spread over the packs.
        sequence_alignment: The multiple of tokens to which documents are padded; see
            `PackedDatasetWrapper`.

    Returns:
        The dataset of packs.

    Raises:
        SampleTooLongError: A sample is longer than a pack.
        ConfigError: An option is out of range or contradicts another.
    """
    check_wrapper(None, None, dataset)
    _check_options(dataset, pack_size, packing_ratio, processor, ds_raw)
    lengths, media = _measure_samples(dataset)
    documents = np.maximum(lengths - 1, 1)
    aligned = -(-documents // sequence_alignment) * sequence_alignment
    fits = _select_fitting(aligned, pack_size, drop=drop_long_samples)
    capacity = max(int(pack_size * packing_ratio), 1)
    bins = _plan_bins(aligned[fits], capacity, media[fits] if balance_media_tokens else None)
    packs = [[int(fits[i]) for i in members] for members in bins][:max_packs]
    return PackedDatasetWrapper(
        inner_dataset=dataset,
        bins=packs,
        pack_size=pack_size,
        padding_idx=padding_idx,
        sequence_alignment=sequence_alignment,
        get_rope_index=get_rope_index,
    )


def _check_options(
    dataset: PreTokenizedDatasetWrapper,
    pack_size: int,
    packing_ratio: float,
    processor: Any,
    ds_raw: Any,
) -> None:
    """Refuses options that are out of range or contradict the dataset."""
    check_count("pack_size", pack_size)
    if not 0 < packing_ratio <= 1:
        raise ConfigError(
            f"packing_ratio is out of range: found {packing_ratio}, expected more than 0 and at "
            "most 1"
        )
    for name, value, own in (
        ("processor", processor, dataset.processor),
        ("ds_raw", ds_raw, dataset.dataset),
    ):
        if value is not None and value is not own:
            raise ConfigError(
                f"{name} differs from that of dataset, so its samples would have other lengths; "
                "pass the same object, or omit it"
            )


def _select_fitting(sizes: Ints, pack_size: int, *, drop: bool) -> Ints:
    """Returns the indices of samples that fit; others raise or are dropped."""
    fits = np.flatnonzero(sizes <= pack_size)
    if len(fits) == len(sizes):
        return fits
    first = int(np.flatnonzero(sizes > pack_size)[0])
    count = len(sizes) - len(fits)
    problem = f"{sizes[first]} tokens, longer than pack_size={pack_size} ({count} such samples)"
    if not drop:
        raise SampleTooLongError(
            f"{problem}; raise pack_size, set max_length, or set drop_long_samples=True",
            index=first,
        )
    _LOG.warning("sample %d is dropped: %s", first, problem)
    return fits


@attrs.define
class NeatPackConfig:
    """The options of `neat_pack_dataset_vlm`, without the samples.

    Args:
        pack_size: See `neat_pack_dataset_vlm`.
        drop_long_samples: See `neat_pack_dataset_vlm`.
        max_packs: See `neat_pack_dataset_vlm`.
        packing_ratio: See `neat_pack_dataset_vlm`.
        balance_media_tokens: See `neat_pack_dataset_vlm`.
        collate_max_length: The length of every batch, by default that of its longest pack.
        attn_implementation: See `neat_packed_vlm_collater`.
        packing_format: `"neat"`, or `"thd"` for Transformer Engine.
    """

    pack_size: int = 2048
    drop_long_samples: bool = False
    max_packs: int | None = None
    packing_ratio: float = 1.0
    balance_media_tokens: bool = True
    collate_max_length: int | None = None
    attn_implementation: str | None = None
    packing_format: Literal["neat", "thd"] = attrs.field(
        default="neat", validator=one_of("neat", "thd")
    )

    def build(
        self,
        *,
        dataset: Any,
        padding_idx: int,
        ds_raw: Any = None,
        get_rope_index: Callable[..., Any] | None = None,
        processor: Any = None,
        cp_size: int = 1,
    ) -> PackedDatasetWrapper:
        """Plans the packs.

        Args:
            dataset: See `neat_pack_dataset_vlm`.
            padding_idx: See `neat_pack_dataset_vlm`.
            ds_raw: See `neat_pack_dataset_vlm`.
            get_rope_index: See `neat_pack_dataset_vlm`.
            processor: See `neat_pack_dataset_vlm`.
            cp_size: The number of context parallel ranks. With `"thd"`, documents are padded to a
                multiple of twice this number of tokens.
        """
        check_count("cp_size", cp_size)
        alignment = 2 * cp_size if self.packing_format == "thd" and cp_size > 1 else 1
        if (self.collate_max_length or 0) % alignment:
            raise ConfigError(
                f"collate_max_length is invalid: found {self.collate_max_length}, expected a "
                f"multiple of 2 * cp_size={alignment}; round it up"
            )
        return neat_pack_dataset_vlm(
            dataset,
            self.pack_size,
            padding_idx,
            drop_long_samples=self.drop_long_samples,
            max_packs=self.max_packs,
            get_rope_index=get_rope_index,
            ds_raw=ds_raw,
            packing_ratio=self.packing_ratio,
            processor=processor,
            balance_media_tokens=self.balance_media_tokens,
            sequence_alignment=alignment,
        )


def _measure_samples(dataset: PreTokenizedDatasetWrapper) -> tuple[Ints, Ints]:
    """Counts the tokens (N,) and the media items (N,) of the samples."""
    size = len(dataset)
    found = [dataset.measure(index) for index in range(size)]
    lengths = np.array([length for length, _ in found], np.int64)
    media = np.array([items for _, items in found], np.int64)
    for index in np.flatnonzero(lengths < 0):  # the wrapper will replace this sample
        others = replacement_indices(int(index), size, dataset.max_retries)
        replacement = next((i for i in others if lengths[i] >= 0), None)
        lengths[index], media[index] = (1, 0) if replacement is None else found[replacement]
    return lengths, media


def _plan_bins(sizes: Ints, capacity: int, media: Ints | None) -> list[list[int]]:
    """Assigns samples to packs of `capacity` tokens.

    A longer sample is alone in its pack.
    """
    plan = plan_packs(sizes, max_length=capacity, on_overlong="own_pack")
    if media is None or not media.any():
        return [members.tolist() for members in plan]
    used = np.zeros(len(plan), np.int64)
    items = np.zeros(len(plan), np.int64)
    bins: list[list[int]] = [[] for _ in plan]
    for index in np.lexsort((-sizes, -media)):
        free = np.flatnonzero(used + sizes[index] <= capacity)
        if not len(free):
            empty = np.flatnonzero(used == 0)
            free = empty[:1]
            if not len(free):
                used, items = np.append(used, 0), np.append(items, 0)
                bins.append([])
                free = np.array([len(bins) - 1])
        # the pack with the fewest media items, and of these the fullest
        best = int(free[np.lexsort((-used[free], items[free] if media[index] else -used[free]))[0]])
        bins[best].append(int(index))
        used[best] += sizes[index]
        items[best] += media[index]
    return [sorted(members) for members in bins if members]
