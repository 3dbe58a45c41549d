"""Automodel's dataset wrappers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch

from vlmcollate.automodel.padding import JOINS_KEY
from vlmcollate.collator import BaseCollator
from vlmcollate.models import collator_for
from vlmcollate.packing import PackPlan, plan_packs
from vlmcollate.padding import BlockCausalMask
from vlmcollate.sample import EncodedSample


@attrs.define(eq=False)
class PreTokenizedDatasetWrapper:
    """Encodes one sample whenever it is asked for, in the worker that asks.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`.
        processor: The processor.
        max_length: The most tokens of a sample.
        inject_fake_images: Whether a sample without images gets a small white one, with attention 0
            and no label, so that the vision tower runs on every rank.
        template_kwargs: Chat template variables, such as `{"enable_thinking": False}`.
        model_config: The configuration of the model, for packs; see `BaseCollator`.
    """

    dataset: Any
    processor: Any
    max_length: int | None = None
    inject_fake_images: bool = False
    template_kwargs: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)
    model_config: Any = attrs.field(default=None, kw_only=True)
    collator: BaseCollator = attrs.field(init=False)

    @collator.default
    def _collator(self) -> BaseCollator:
        wanted = "sample" if self.inject_fake_images else "never"
        policy = "truncate" if self.max_length else "raise"
        return collator_for(
            self.processor,
            max_length=self.max_length,
            on_overlong=policy,
            placeholder_media=wanted,
            template_kwargs=dict(self.template_kwargs or {}),
            model_config=self.model_config,
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def encode(self, index: int) -> EncodedSample:
        """The sample in this library's form."""
        return self.collator.encode(self.dataset[index])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample's tensors, (L,) and its media, labels not shifted, for `pad_collate_fn`.

        Where there is media, `n_images` and so on say how many items.
        """
        sample = self.encode(index)
        return {**sample.tokens, **sample.media, **_counts(sample)}


@attrs.define(eq=False)
class PackedDatasetWrapper:
    """Packs samples by a plan made up front; each pack is joined when it is asked for.

    Args:
        dataset: The samples.
        pack_size: The most tokens of a pack; documents are one shorter than their sample.
        lengths: The samples' tokens; by default every sample is encoded once to know them.
        on_overlong: What becomes of a sample longer than a pack; see `plan_packs`.

    Raises:
        ConfigError: The masks that the packed collate functions make would not keep the documents
            apart in the model, as in Gemma 3 with its sliding layers, or `model_config` is needed
            to know that; `BaseCollator.pack` serves more models, with other layouts.
    """

    dataset: PreTokenizedDatasetWrapper
    pack_size: int
    lengths: Sequence[int] | None = None
    on_overlong: Any = "raise"
    plan: PackPlan = attrs.field(init=False)

    @plan.default
    def _plan(self) -> PackPlan:
        # the mask that the packed functions make, refused for models in which documents would leak
        attrs.evolve(self.dataset.collator, padding=BlockCausalMask())
        lengths = self.lengths
        if lengths is None:
            lengths = [len(self.dataset.encode(index)) for index in range(len(self.dataset))]
        shorter = [max(length - 1, 1) for length in lengths]
        return plan_packs(shorter, max_length=self.pack_size, on_overlong=self.on_overlong)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One pack for `neat_packed_vlm_collater`, labels shifted within each document.

        Returns:
            `input_ids`, `labels`, the family's token types, `attention_mask` with 1, 2, ... for
            the documents and 0 for what is attended to nowhere, all (L,); `position_ids` (L,) or
            (3, L); joined media, with `media_joins` that say how it joins other packs'; `n_images`
            and so on.
        """
        collator = self.dataset.collator
        samples = [self.dataset.encode(int(i)) for i in self.plan[index]]
        pack = collator.pack(samples)
        ends = torch.tensor([len(sample) for sample in samples]).cumsum(0)
        inputs, targets = (
            torch.ones(len(pack), dtype=torch.bool),
            torch.ones_like(pack.input_ids, dtype=torch.bool),
        )
        inputs[ends - 1] = False
        targets[torch.cat([ends.new_zeros(1), ends[:-1]])] = False
        tokens = dict(pack.tokens)
        documents, places = tokens.pop("document_ids")[inputs], tokens.pop("position_ids")[inputs]
        out: dict[str, Any] = {
            key: value[targets if key in ("labels", "loss_weights") else inputs]
            for key, value in tokens.items()
        }
        out["attention_mask"] = documents
        # the model's first axis is the position in the text, which Automodel leaves out
        out["position_ids"] = places[:, 1:].T.contiguous() if places.ndim == 2 else places
        if pack.media:
            out[JOINS_KEY] = collator.media_joins
        return {**out, **pack.media, "n_images": 0, "n_videos": 0, **_counts(pack)}


def _counts(sample: EncodedSample) -> dict[str, int]:
    return {f"n_{kind}s": count for kind, count in sample.media_counts.items()}
