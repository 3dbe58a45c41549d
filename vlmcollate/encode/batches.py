"""The second half of a collator: batches and packs of encoded samples.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, final

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.stacking import fill_values, media_counts, stack_samples
from vlmcollate.conversation import MediaKind
from vlmcollate.encode.media_counts import MediaCounts
from vlmcollate.encode.padding import pad_rows
from vlmcollate.encode.pixel_path import pixel_path
from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import ConfigError, EmptyBatchError
from vlmcollate.family import Packable
from vlmcollate.media import MediaRequest
from vlmcollate.packing.branches import join_branches
from vlmcollate.packing.documents import join_documents, with_blocks
from vlmcollate.packing.layout_rules import check_layout
from vlmcollate.sample import IGNORE_INDEX, EncodedSample


@attrs.frozen(kw_only=True, eq=False)
class Batches(MediaCounts):
    """Makes batches and packs of encoded samples; see `BaseCollator`."""

    @final
    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Any]:
        """Makes a batch of encoded samples.

        Args:
            samples: What `encode` returned, at least one.

        Returns:
            A plain dict of contiguous tensors: `input_ids`, `attention_mask` and `labels`, (B, T)
            int64, the family's token types, `loss_weights` (B, T) float32 if messages have
            weights other than 0 and 1, `logprobs` (B, T) float32 if tokens were sampled with them,
            the joined media tensors, and with `counts` `n_images_per_sample` and the like, (B,)
            int64, if there is such media. With `pixels="uint8"` pixels are `PixelBytes`.

        Raises:
            EmptyBatchError: There is no sample.
            ConfigError: An item is no sample; or it is a pack, and the padding keeps no documents
                apart; or it trains without log probabilities, and others have them.
            MediaMismatchError: The media of two samples cannot be joined.
        """
        check_stackable(samples, EncodedSample, of=self)
        if not samples:
            raise EmptyBatchError("no example to collate; the batch is empty")
        if self.dummy_media == "batch" and not any(s.documents for s in samples):
            shortest = min(range(len(samples)), key=lambda i: len(samples[i]))
            filled = self.dummies.add(samples[shortest], samples)
            samples = [*samples[:shortest], filled, *samples[shortest + 1 :]]
        is_packed = self.padding.separates_by is not None
        if is_packed:
            samples = [s if s.documents else self.pack([s]) for s in samples]
        elif any(sample.documents for sample in samples):
            raise ConfigError(
                f"these samples are packs, whose documents would attend to each other with "
                f"{type(self.padding).__name__}; set padding to a layout that keeps them apart, "
                "such as BlockCausalMask() or FlattenedDocuments()"
            )
        batch = stack_samples(
            samples,
            partial(pad_rows, self.padding),
            self.family.joins,
            fill_values(self.processor.tokenizer),
            shift_labels=self.shift_labels,
            is_packed=is_packed,
            pixels=self.pixels,
        )
        return {**batch, **media_counts(samples)} if self.counts else batch

    @final
    def pack(self, samples: Sequence[EncodedSample], *, multiple_of: int = 1) -> EncodedSample:
        """Joins encoded samples into one pack, whose documents they are.

        Stack packs with a `padding` that keeps documents apart.

        Args:
            samples: What `encode` returned, at least one.
            multiple_of: Every document is padded to a multiple of this many tokens, as context
                parallel ranks need it (2 x ranks).

        Returns:
            The concatenated samples, with two more token keys: `document_ids` (L,), from 1 for
            documents and 0 for padding and dummy media, and `position_ids`, which restart with
            each document. The first token of each document has no label, since no token precedes
            it. `unpack` takes a pack apart.

        Raises:
            EmptyBatchError: There is no sample.
            ConfigError: The model cannot be trained on packs, an item is no sample or a pack
                already, or some samples lack log probabilities.
        """
        check_stackable(samples, EncodedSample, of=self)
        if not samples:
            raise EmptyBatchError("no sample to pack")
        samples, positions = self._packable(samples)
        fill = fill_values(self.processor.tokenizer)
        return join_documents(samples, positions, self.family.joins, fill, multiple_of=multiple_of)

    @final
    def pack_branches(self, samples: Sequence[EncodedSample]) -> EncodedSample:
        """Joins encoded samples that begin alike into one pack, which holds their beginning once.

        Stack such packs with a `padding` that makes a mask. A token attends to the beginning and to
        its own branch.

        Args:
            samples: What `encode` returned, at least two, with the same media in their beginning,
                of which nothing trains.

        Returns:
            The beginning and the rest of each sample, with three more token keys: `document_ids`
            (L,), 1, and 0 for dummy media; `branch_ids` (L,), 0 for the beginning and from 1 on
            for each sample; and `position_ids`, those of each sample alone. The last token of the
            beginning stands in every branch.

        Raises:
            EmptyBatchError: There are fewer than two samples.
            ConfigError: The model cannot be trained on packs, an item is no sample or a pack
                already, or the samples do not begin alike.
        """
        check_stackable(samples, EncodedSample, of=self)
        if len(samples) < 2:
            raise EmptyBatchError(f"expected at least two samples to join, found {len(samples)}")
        samples, positions = self._packable(samples)
        return join_branches(samples, positions)

    def _packable(
        self, samples: Sequence[EncodedSample]
    ) -> tuple[Sequence[EncodedSample], list[Tensor]]:
        """Returns samples with the keys that packs need, and the positions of each."""
        self._check_packs()
        if any(sample.documents for sample in samples):
            raise ConfigError("one of the samples is a pack already; unpack it first")
        positions = [self.position_ids(sample) for sample in samples]
        packing, types = self.family.packing, self.family.token_types
        if isinstance(packing, Packable) and packing.bidirectional_images and types:
            samples = [with_blocks(sample, types.key) for sample in samples]
        return samples, positions

    def dummy_sample(self) -> EncodedSample:
        """Returns a sample to use instead of a bad one, if a batch has to keep its rows.

        By default one token without a label, which is attended to, so that no attention row is
        empty.
        """
        ids = torch.tensor([fill_values(self.processor.tokenizer)["input_ids"]])
        tokens = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": torch.full_like(ids, IGNORE_INDEX),
        }
        if self.family.token_types is not None:
            tokens[self.family.token_types.key] = torch.zeros_like(ids)
        no_origin = torch.full_like(ids, -1)
        sample = EncodedSample(tokens=tokens, message_ids=no_origin, media_ids=no_origin)
        sample = self.postprocess(sample)
        return self.dummies.add(sample, [sample]) if self.dummy_media == "sample" else sample

    def position_ids(self, sample: EncodedSample) -> Tensor:
        """Returns a document's positions in a pack, (L,) or (L, axes) int64."""
        packing = self.family.packing
        if isinstance(packing, Packable) and packing.positions is not None:
            return packing.positions(sample, self.processor)
        return torch.arange(len(sample))

    @property
    def packing_refusal(self) -> str:
        """The reason why `pack` would refuse every sample, or an empty string."""
        return self.family.packing_refusal(self.model_config, self.processor)

    def _check_packs(self) -> None:
        """Refuses packs whose documents the model or layout would not keep apart."""
        if self.packing_refusal:
            raise ConfigError(f"{type(self).__name__} makes no packs: {self.packing_refusal}")
        mixing = self.family.mixing(self.model_config)
        if self.padding.separates_by is not None and mixing is not None:
            check_layout(self.padding, mixing)

    def _check_bytes(self) -> None:
        """Refuses bytes if no pixels of the processor are bytes."""
        if not self._keeps_bytes:
            raise ConfigError(
                f'pixels="uint8" has no effect: code of {type(self).__name__} takes its pixels as '
                "floats; declare Family(takes_pixel_bytes=True) if it takes bytes, or choose "
                '"float32" or "bfloat16"'
            )
        visual: tuple[MediaKind, ...] = ("image", "video")
        if not any(self._takes_bytes(kind) for kind in visual if kind in self.traits.placeholders):
            raise ConfigError(
                f'pixels="uint8" has no effect: {type(self.processor).__name__} makes floats that '
                'no table of bytes gives, or takes no images; choose "float32" or "bfloat16"'
            )

    def _takes_bytes(self, kind: MediaKind) -> bool:
        """Returns whether the processor's pixels of a kind are bytes."""
        request = MediaRequest(
            processor=self.processor,
            kinds=[kind],
            items=[],
            texts=[self.traits.placeholders[kind]],
            joins=self.family.joins,
        )
        return bool(pixel_path(self.family.process, request, kind).tables)
