"""Automodel's wrapper that joins samples to packs.

Shapes: L a pack's tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlmcollate.automodel.datasets import PreTokenizedDatasetWrapper, count_items
from vlmcollate.automodel.packs import neat_packed_vlm_collater, packed_sequence_thd_vlm_collater
from vlmcollate.automodel.retrying import make_robust_collate
from vlmcollate.automodel.tokenized import JOINS_KEY
from vlmcollate.batch.stacking import fill_values
from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.padding import BlockCausalMask
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import at_least_one

Ints = npt.NDArray[np.int64]
_LOG = logging.getLogger(__name__)
_AHEAD = ("labels", "loss_weights")
_COLLATERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (neat_packed_vlm_collater, packed_sequence_thd_vlm_collater)
}


def check_wrapper(_: object, __: object, value: Any) -> None:
    """Refuses a dataset that is no wrapper of this library."""
    if not isinstance(value, PreTokenizedDatasetWrapper):
        raise ConfigError(
            "inner_dataset is not a wrapper of this library: found "
            f"{type(value).__name__}, expected vlmcollate.automodel.PreTokenizedDatasetWrapper; "
            "wrap the dataset in it"
        )


@attrs.define(eq=False)
class PackedDatasetWrapper(Dataset[Any]):
    """Joins the samples of a pack on access.

    A sample that does not fit in its pack is dropped with a warning in the log. To avoid this, plan
    the packs with `neat_pack_dataset_vlm`, which uses true lengths.

    Args:
        inner_dataset: The samples, a `PreTokenizedDatasetWrapper` of this library.
        bins: The indices of the samples in each pack.
        pack_size: The maximum number of tokens in a pack. A document has one token less than its
            sample, because its labels are shifted.
        padding_idx: The id of the padding token, for `sequence_alignment`.
        sequence_alignment: The number of tokens to a multiple of which every document is padded.
        get_rope_index: The model's function for positions of several axes, or `None`. It is not
            called: the collator computes the positions. If it is given, a family without such
            positions is refused.
        max_retries: The default, or the value of the inner dataset.

    Raises:
        ConfigError: An option contradicts another, or the model needs other masks than the packed
            collate functions make, such as Gemma 3 for its sliding layers; use `BaseCollator.pack`
            and `BlockCausalMask` for it.
    """

    inner: PreTokenizedDatasetWrapper = attrs.field(alias="inner_dataset", validator=check_wrapper)
    bins: Sequence[Sequence[int]]
    pack_size: int = attrs.field(validator=at_least_one)
    padding_idx: int = 0
    sequence_alignment: int = attrs.field(default=1, validator=at_least_one)
    get_rope_index: Callable[..., Any] | None = None
    max_retries: int = 10

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other."""
        # raises for a family whose layers need more than one mask
        attrs.evolve(self.inner.collator, padding=BlockCausalMask())
        if self.has_mrope and self.sequence_alignment > 1:
            raise ConfigError(
                f"sequence_alignment={self.sequence_alignment} contradicts get_rope_index: aligned "
                "documents have positions of one axis; omit one of them"
            )
        if self.max_retries not in (10, self.inner.max_retries):
            raise ConfigError(
                f"max_retries={self.max_retries} has no effect here: found "
                f"{self.inner.max_retries} on inner_dataset; set it there"
            )

    @property
    def has_mrope(self) -> bool:
        """Whether positions of several axes are required."""
        return self.get_rope_index is not None

    def __len__(self) -> int:
        return len(self.bins)

    def robust_collate(self, collate_fn: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        """Replaces packs that cannot be collated; see `make_robust_collate`.

        Automodel's loader passes its own packed collate functions, which drop media keys and do not
        support tokens outside the documents. They are replaced by those of this library.

        Args:
            collate_fn: The function that collates a list of packs.
        """
        if isinstance(collate_fn, partial) and collate_fn.func.__name__ in _COLLATERS:
            ours = _COLLATERS[collate_fn.func.__name__]
            collate_fn = partial(ours, *collate_fn.args, **collate_fn.keywords)
        return make_robust_collate(self, collate_fn, self.inner.max_retries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns a pack, with labels shifted in each document.

        Returns:
            `input_ids`, `labels`, the token types of the family, and `attention_mask` with the
            number of the document from 1 on, or 0 for tokens masked from attention, all (L,);
            `position_ids` (L,) or (3, L); `seq_lens` and `seq_lens_padded`, the lengths of the
            documents without and with their padding; the joined media, and `media_joins`, the rules
            that join it with other packs; the numbers of media items, such as `n_images`.

        Raises:
            SampleTooLongError: No sample fits in the pack.
        """
        collator = self.inner.collator
        samples = self._samples_of_pack(index)
        pack = collator.pack(samples)
        tokens, real, padded = self._documents(pack, [len(sample) for sample in samples])
        documents, positions = tokens.pop("document_ids"), tokens.pop("position_ids")
        if self.has_mrope and positions.ndim == 1:
            raise ConfigError(
                f"{type(collator).__name__} computes positions of one axis, but get_rope_index "
                "requires several; register a collator with the model's positions"
            )
        out: dict[str, Any] = {**tokens, "attention_mask": documents}
        # the model's first axis is the position in the text, which Automodel omits
        is_mrope = positions.ndim > 1
        out["position_ids"] = positions[:, 1:].T.contiguous() if is_mrope else positions
        out |= {"seq_lens": real, "seq_lens_padded": padded}
        if pack.media:
            out[JOINS_KEY] = collator.family.joins
        return {**out, **pack.media, "n_images": 0, "n_videos": 0, **count_items(pack)}

    def _align(self, length: int) -> int:
        """Rounds a length up to a multiple of `sequence_alignment`."""
        return -(-length // self.sequence_alignment) * self.sequence_alignment

    def _samples_of_pack(self, index: int) -> list[EncodedSample]:
        """Encodes the samples of a pack, and drops those that do not fit."""
        kept: list[EncodedSample] = []
        free = self.pack_size
        for number in self.bins[index]:
            sample = self.inner.encode(int(number))
            size = self._align(len(sample) - 1)
            if 0 < size <= free:
                kept.append(sample)
                free -= size
            else:
                _LOG.warning(
                    "sample %d is dropped from pack %d: found %d tokens, expected at most the %d "
                    "that are free of pack_size=%d",
                    number,
                    index,
                    size,
                    free,
                    self.pack_size,
                )
        if not kept:
            raise SampleTooLongError(
                f"no sample of the pack fits in pack_size={self.pack_size}; raise it, or plan the "
                "packs with neat_pack_dataset_vlm",
                index=index,
            )
        return kept

    def _documents(
        self, pack: EncodedSample, lengths: Sequence[int]
    ) -> tuple[dict[str, Tensor], list[int], list[int]]:
        """Shifts and aligns each document, and returns the lengths."""
        fill = {**fill_values(self.inner.processor.tokenizer), "input_ids": self.padding_idx}
        pieces: dict[str, list[Tensor]] = {key: [] for key in pack.tokens}
        real, padded, start = [], [], 0
        for length in lengths:
            size = self._align(length - 1)
            for key, value in pack.tokens.items():
                row = value[start : start + length].narrow(0, int(key in _AHEAD), length - 1)
                if key == "document_ids":
                    real.append(int((row > 0).sum()))
                pieces[key].append(_pad_document(key, row, size, fill.get(key, 0)))
            padded.append(size)
            start += length
        return {key: torch.cat(rows) for key, rows in pieces.items()}, real, padded


def _pad_document(key: str, row: Tensor, size: int, value: float) -> Tensor:
    """Pads a document; the padding continues its number and positions."""
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
    """The options of a `PackedDatasetWrapper`, without the samples.

    Args:
        pack_size: See `PackedDatasetWrapper`.
        sequence_alignment: See `PackedDatasetWrapper`.
        max_retries: See `PackedDatasetWrapper`.
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
        """Wraps the samples; see `PackedDatasetWrapper` for the arguments."""
        return PackedDatasetWrapper(
            inner_dataset=inner_dataset,
            bins=bins,
            pack_size=self.pack_size,
            padding_idx=padding_idx,
            sequence_alignment=self.sequence_alignment,
            get_rope_index=get_rope_index,
            max_retries=self.max_retries,
        )
