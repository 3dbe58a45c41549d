"""Automodel's wrapper that packs samples, and the plan of the packs.

Shapes: L a pack's tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlmcollate.automodel.datasets import PreTokenizedDatasetWrapper, item_counts
from vlmcollate.automodel.given import JOINS_KEY
from vlmcollate.automodel.packs import neat_packed_vlm_collater, packed_sequence_thd_vlm_collater
from vlmcollate.automodel.retrying import draws, make_robust_collate
from vlmcollate.batch.stacking import fill_values
from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.packing import plan_packs
from vlmcollate.padding import BlockCausalMask
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import at_least_one, check_count, one_of

Ints = npt.NDArray[np.int64]
_LOG = logging.getLogger(__name__)
_AHEAD = ("labels", "loss_weights")
_COLLATERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (neat_packed_vlm_collater, packed_sequence_thd_vlm_collater)
}


def _pretokenized(_: object, __: object, value: Any) -> None:
    if not isinstance(value, PreTokenizedDatasetWrapper):
        raise ConfigError(
            f"inner_dataset is no wrapper of this library: found {type(value).__name__}, expected "
            "vlmcollate.automodel.PreTokenizedDatasetWrapper; wrap the dataset in it"
        )


@attrs.define(eq=False)
class PackedDatasetWrapper(Dataset[Any]):
    """Joins the samples of a pack when it is asked for.

    A sample that does not fit its pack is left out, with a warning in the log: plan the packs by
    true lengths, as `neat_pack_dataset_vlm` does.

    Args:
        inner_dataset: The samples.
        bins: The indices of the samples of each pack.
        pack_size: The maximum number of tokens of a pack; documents are one shorter than their
            sample.
        padding_idx: The padding token, for `sequence_alignment`.
        sequence_alignment: Every document is padded to a multiple of this many tokens.
        get_rope_index: The model's, if it has positions of several axes. They are computed by the
            collator of the processor, and a family without them is refused.
        max_retries: That of the inner dataset.

    Raises:
        ConfigError: An option contradicts another, or the family's masks are more than the packed
            collate functions make, as Gemma 3's for its sliding layers; `BaseCollator.pack` and
            `BlockCausalMask` make them.
    """

    inner: PreTokenizedDatasetWrapper = attrs.field(alias="inner_dataset", validator=_pretokenized)
    bins: Sequence[Sequence[int]]
    pack_size: int = attrs.field(validator=at_least_one)
    padding_idx: int = 0
    sequence_alignment: int = attrs.field(default=1, validator=at_least_one)
    get_rope_index: Callable[..., Any] | None = None
    max_retries: int = 10

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other."""
        # a family whose layers need more than one mask refuses this one
        attrs.evolve(self.inner.collator, padding=BlockCausalMask())
        if self.has_mrope and self.sequence_alignment > 1:
            raise ConfigError(
                f"sequence_alignment={self.sequence_alignment} does not go with get_rope_index: "
                "aligned documents have positions of one axis; leave one of them out"
            )
        if self.max_retries not in (10, self.inner.max_retries):
            raise ConfigError(
                f"max_retries={self.max_retries} has no effect here: found "
                f"{self.inner.max_retries} on inner_dataset; set it there"
            )

    @property
    def has_mrope(self) -> bool:
        """Whether positions of several axes are asked for."""
        return self.get_rope_index is not None

    def __len__(self) -> int:
        return len(self.bins)

    def robust_collate(self, collate_fn: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        """Has a batch of packs that fails drawn again; see `make_robust_collate`.

        Automodel's loader calls this with its own packed collate functions, which know neither all
        media keys nor tokens of no document: they become this library's.
        """
        if isinstance(collate_fn, partial) and collate_fn.func.__name__ in _COLLATERS:
            ours = _COLLATERS[collate_fn.func.__name__]
            collate_fn = partial(ours, *collate_fn.args, **collate_fn.keywords)
        return make_robust_collate(self, collate_fn, self.inner.max_retries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One pack for the packed collate functions, labels shifted within each document.

        Returns:
            `input_ids`, `labels`, the family's token types, `attention_mask` with 1, 2, ... for
            the documents and 0 for what is attended to nowhere, all (L,); `position_ids` (L,) or
            (3, L); `seq_lens` and `seq_lens_padded`, the documents' tokens without and with their
            padding; joined media, with `media_joins` that say how it joins other packs'; `n_images`
            and so on.

        Raises:
            SampleTooLongError: No sample of the pack fits it.
        """
        collator = self.inner.collator
        samples = self._fitting(index)
        pack = collator.pack(samples)
        tokens, real, padded = self._documents(pack, [len(sample) for sample in samples])
        documents, places = tokens.pop("document_ids"), tokens.pop("position_ids")
        if self.has_mrope and places.ndim == 1:
            raise ConfigError(
                f"{type(collator).__name__} computes positions of one axis: found get_rope_index, "
                "expected a collator with the model's positions; register one for the processor"
            )
        out: dict[str, Any] = {**tokens, "attention_mask": documents}
        # the model's first axis is the position in the text, which Automodel leaves out
        out["position_ids"] = places[:, 1:].T.contiguous() if places.ndim > 1 else places
        out |= {"seq_lens": real, "seq_lens_padded": padded}
        if pack.media:
            out[JOINS_KEY] = collator.family.joins
        return {**out, **pack.media, "n_images": 0, "n_videos": 0, **item_counts(pack)}

    def _aligned(self, length: int) -> int:
        return -(-length // self.sequence_alignment) * self.sequence_alignment

    def _fitting(self, index: int) -> list[EncodedSample]:
        """The samples of a pack, as many as fit."""
        kept: list[EncodedSample] = []
        room = self.pack_size
        for number in self.bins[index]:
            sample = self.inner.encode(int(number))
            taken = self._aligned(len(sample) - 1)
            if 0 < taken <= room:
                kept.append(sample)
                room -= taken
            else:
                _LOG.warning(
                    "pack %d leaves out sample %d: %d tokens, and %d of pack_size=%d are free",
                    index,
                    number,
                    taken,
                    room,
                    self.pack_size,
                )
        if not kept:
            raise SampleTooLongError(
                f"no sample of the pack fits pack_size={self.pack_size}; raise it, or plan the "
                "packs with neat_pack_dataset_vlm",
                index=index,
            )
        return kept

    def _documents(
        self, pack: EncodedSample, lengths: Sequence[int]
    ) -> tuple[dict[str, Tensor], list[int], list[int]]:
        """The pack's tokens, each document shifted and aligned, and the documents' lengths."""
        fill = {**fill_values(self.inner.processor.tokenizer), "input_ids": self.padding_idx}
        pieces: dict[str, list[Tensor]] = {key: [] for key in pack.tokens}
        real, padded, start = [], [], 0
        for length in lengths:
            size = self._aligned(length - 1)
            for key, value in pack.tokens.items():
                row = value[start : start + length].narrow(0, int(key in _AHEAD), length - 1)
                if key == "document_ids":
                    real.append(int((row > 0).sum()))
                pieces[key].append(_padded(key, row, size, fill.get(key, 0)))
            padded.append(size)
            start += length
        return {key: torch.cat(rows) for key, rows in pieces.items()}, real, padded


def _padded(key: str, row: Tensor, size: int, value: float) -> Tensor:
    """A document's row with its padding, which continues the document's number and positions."""
    more = size - len(row)
    if not more:
        return row
    if key == "position_ids":
        rest = row[-1:] + torch.arange(1, more + 1).reshape(-1, *[1] * (row.ndim - 1))
    elif key in ("document_ids", "attention_mask"):
        rest = row[-1:].repeat(more)
    else:
        rest = row.new_full((more, *row.shape[1:]), value)
    return torch.cat([row, rest])


@attrs.define
class PackedDatasetWrapperConfig:
    """The options of a `PackedDatasetWrapper`, before there are samples.

    Args:
        pack_size: See there, as for the others.
        sequence_alignment: See there.
        max_retries: See there.
    """

    pack_size: int = 2048
    sequence_alignment: int = 1
    max_retries: int = 10

    def build(
        self,
        *,
        inner_dataset: Any,
        bins: Sequence[Sequence[int]],
        padding_idx: int,
        get_rope_index: Callable[..., Any] | None = None,
    ) -> PackedDatasetWrapper:
        """Wraps the samples."""
        return PackedDatasetWrapper(
            inner_dataset=inner_dataset,
            bins=bins,
            pack_size=self.pack_size,
            padding_idx=padding_idx,
            sequence_alignment=self.sequence_alignment,
            get_rope_index=get_rope_index,
            max_retries=self.max_retries,
        )


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
    """Plans packs by the true lengths of the samples, which are counted without decoding media.

    Args:
        dataset: A `PreTokenizedDatasetWrapper` of this library.
        pack_size: The maximum number of tokens of a pack.
        padding_idx: The padding token.
        drop_long_samples: Whether samples that fit no pack are left out, with a warning in the log;
            if not, the first is an error.
        max_packs: The maximum number of packs; the rest is left out.
        get_rope_index: See `PackedDatasetWrapper`.
        ds_raw: The dataset inside `dataset`; that one by default.
        packing_ratio: The share of `pack_size` that several samples together may fill.
        processor: The processor of `dataset`; that one by default.
        balance_media_tokens: Whether samples with media are spread over the packs.
        sequence_alignment: See `PackedDatasetWrapper`.

    Raises:
        SampleTooLongError: A sample fits no pack.
        ConfigError: An option does not fit.
    """
    _pretokenized(None, None, dataset)
    at_least_one(None, attrs.fields(PackedDatasetWrapper).pack_size, pack_size)
    if not 0 < packing_ratio <= 1:
        raise ConfigError(
            f"packing_ratio is no share: found {packing_ratio}, expected more than 0 and at most 1"
        )
    for name, value, own in (
        ("processor", processor, dataset.processor),
        ("ds_raw", ds_raw, dataset.dataset),
    ):
        if value is not None and value is not own:
            raise ConfigError(
                f"{name} is another than that of dataset: its samples would have other lengths; "
                "pass the same object, or leave it out"
            )
    lengths, media = _lengths(dataset)
    shifted = np.maximum(lengths - 1, 1)
    aligned = -(-shifted // sequence_alignment) * sequence_alignment
    fits = np.flatnonzero(aligned <= pack_size)
    if len(fits) < len(aligned):
        first = int(np.flatnonzero(aligned > pack_size)[0])
        found = f"{aligned[first]} tokens do not fit a pack of pack_size={pack_size}, and "
        found += f"{len(aligned) - len(fits) - 1} more samples do not"
        if not drop_long_samples:
            raise SampleTooLongError(
                f"{found}; raise it, set max_length, or set drop_long_samples=True", index=first
            )
        _LOG.warning("sample %d is left out: %s", first, found)
    capacity = max(int(pack_size * packing_ratio), 1)
    bins = _planned(aligned[fits], capacity, media[fits] if balance_media_tokens else None)
    packs = [[int(fits[i]) for i in members] for members in bins][:max_packs]
    return PackedDatasetWrapper(
        inner_dataset=dataset,
        bins=packs,
        pack_size=pack_size,
        padding_idx=padding_idx,
        sequence_alignment=sequence_alignment,
        get_rope_index=get_rope_index,
    )


@attrs.define
class NeatPackConfig:
    """The options of `neat_pack_dataset_vlm`, before there are samples.

    Args:
        pack_size: See there, as for the others.
        drop_long_samples: See there.
        max_packs: See there.
        packing_ratio: See there.
        balance_media_tokens: See there.
        collate_max_length: The length of every batch; the longest pack by default.
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
            dataset: See `neat_pack_dataset_vlm`, as for the others.
            padding_idx: See there.
            ds_raw: See there.
            get_rope_index: See there.
            processor: See there.
            cp_size: The context parallel ranks; with `"thd"`, documents are padded to a multiple
                of twice as many tokens.
        """
        check_count("cp_size", cp_size)
        alignment = 2 * cp_size if self.packing_format == "thd" and cp_size > 1 else 1
        if (self.collate_max_length or 0) % alignment:
            raise ConfigError(
                f"collate_max_length={self.collate_max_length} is no multiple of 2 * "
                f"cp_size={alignment}; choose one that is"
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


def _lengths(dataset: PreTokenizedDatasetWrapper) -> tuple[Ints, Ints]:
    """The tokens of each sample as it will be encoded, and its media items."""
    size = len(dataset)
    found = [dataset.measure(index) for index in range(size)]
    lengths = np.array([length for length, _ in found], np.int64)
    media = np.array([items for _, items in found], np.int64)
    for index in np.flatnonzero(lengths < 0):  # another is drawn for it
        others = draws(int(index), size, dataset.max_retries)
        stand_in = next((i for i in others if lengths[i] >= 0), None)
        lengths[index], media[index] = (1, 0) if stand_in is None else found[stand_in]
    return lengths, media


def _planned(sizes: Ints, capacity: int, media: Ints | None) -> list[list[int]]:
    """Which samples share a pack of `capacity` tokens; a longer one is alone."""
    plan = plan_packs(sizes, max_length=capacity, on_overlong="own_pack")
    if media is None or not media.any():
        return [members.tolist() for members in plan]
    used = np.zeros(len(plan), np.int64)
    seen = np.zeros(len(plan), np.int64)
    bins: list[list[int]] = [[] for _ in plan]
    for index in np.lexsort((-sizes, -media)):
        free = np.flatnonzero(used + sizes[index] <= capacity)
        if not len(free):
            empty = np.flatnonzero(used == 0)
            free = empty[:1]
            if not len(free):
                used, seen = np.append(used, 0), np.append(seen, 0)
                bins.append([])
                free = np.array([len(bins) - 1])
        # the pack with the least media, and of those the one with the least room
        at = int(free[np.lexsort((-used[free], seen[free] if media[index] else -used[free]))[0]])
        bins[at].append(int(index))
        used[at] += sizes[index]
        seen[at] += media[index]
    return [sorted(members) for members in bins if members]
