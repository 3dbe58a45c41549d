"""Collators whose media, batches or packs are wrong on purpose, each in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation
from vlmcollate.family import NotPackable
from vlmcollate.media import Join, PadAndConcatenate, Stack
from vlmcollate.media.processing.result import ProcessedMedia
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.padding import BlockCausalMask, FlattenedDocuments, PaddingStrategy
from vlmcollate.prompt.rendering import Rendering
from vlmcollate.validators import an_instance_of

Batch = dict[str, Tensor]
FAMILY = Qwen2_5_VLCollator.family
_BY_TEXT: dict[str, ProcessedMedia] = {}


@attrs.frozen(kw_only=True, eq=False)
class ReversesPictures(Qwen2_5_VLCollator):
    """Loads the last picture first."""

    def load(self, conversation: Conversation) -> list[Any]:
        return super().load(conversation)[::-1]


@attrs.frozen(kw_only=True, eq=False)
class RemembersPictures(Qwen2_5_VLCollator):
    """Takes pictures behind the same prompt for the same."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        if rendering.text not in _BY_TEXT:
            _BY_TEXT[rendering.text] = super().process_media(rendering, media)
        return _BY_TEXT[rendering.text]


def _with_pixels(found: ProcessedMedia, change: Callable[[Tensor], Tensor]) -> ProcessedMedia:
    pixels = change(torch.as_tensor(found.tensors["pixel_values"]))
    return attrs.evolve(found, tensors={**found.tensors, "pixel_values": pixels})


@attrs.frozen(kw_only=True, eq=False)
class BlackPictures(Qwen2_5_VLCollator):
    """Loses what a picture shows."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        return _with_pixels(super().process_media(rendering, media), torch.zeros_like)


@attrs.frozen(kw_only=True, eq=False)
class LosesPatches(Qwen2_5_VLCollator):
    """Has fewer features than placeholders."""

    def process_media(self, rendering: Rendering, media: Sequence[Any]) -> ProcessedMedia:
        return _with_pixels(super().process_media(rendering, media), lambda pixels: pixels[:-4])


@attrs.frozen(kw_only=True, eq=False)
class ForgetsTypes(Qwen2_5_VLCollator):
    """Takes every token for text."""

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        types = torch.zeros_like(sample.input_ids)
        return attrs.evolve(sample, tokens={**sample.tokens, "mm_token_type_ids": types})


def _stacking(name: str, doc: str, change: Callable[[Any, Batch], Any]) -> type[Any]:
    """A collator whose batch is changed; its name and docstring say how."""

    @attrs.frozen(kw_only=True, eq=False)
    class Changed(Qwen2_5_VLCollator):
        def stack(self, samples: Sequence[EncodedSample]) -> Batch:  # type: ignore[misc]
            batch = Qwen2_5_VLCollator.stack(self, samples)
            change(self, batch)
            return batch

    Changed.__name__ = Changed.__qualname__ = name
    Changed.__doc__ = doc
    Changed.__module__ = __name__
    globals()[name] = Changed
    return Changed


def _change(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[Any, Batch], None]:
    def changed(_: Any, batch: Batch) -> None:
        if key in batch:
            batch[key] = change(batch[key])

    return changed


def _pad_with_seven(collator: Any, batch: Batch) -> None:
    del collator
    if batch["attention_mask"].ndim == 2:
        batch["input_ids"][batch["attention_mask"] == 0] = 7


def _shift_labels_alone(collator: Any, batch: Batch) -> None:
    if collator.shift_labels:
        whole = torch.nn.functional.pad(batch["input_ids"], (0, 1), value=0)
        batch["input_ids"] = whole


@attrs.frozen(kw_only=True, eq=False)
class OneDocument(Qwen2_5_VLCollator):
    """Gives all documents of a pack one number."""

    def pack(self, samples: Sequence[EncodedSample], **options: Any) -> EncodedSample:  # type: ignore[misc]
        pack = super().pack(samples, **options)
        ones = torch.ones_like(pack.input_ids)
        return attrs.evolve(pack, tokens={**pack.tokens, "document_ids": ones})


@attrs.frozen(kw_only=True)
class LeakyMask(BlockCausalMask):
    """Lets every token see all before it."""

    def add_attention(self, batch: Batch, documents: Tensor, blocks: Tensor | None) -> Batch:
        return super().add_attention(batch, torch.ones_like(documents), blocks)


@attrs.frozen(kw_only=True)
class OneLength(FlattenedDocuments):
    """States one length for all documents."""

    def add_attention(self, batch: Batch, documents: Tensor, blocks: Tensor | None) -> Batch:
        return super().add_attention(batch, torch.ones_like(documents), blocks)


@attrs.frozen(kw_only=True, eq=False)
class LeakyLayout(Qwen2_5_VLCollator):
    """Has a mask that joins documents."""

    padding: PaddingStrategy = attrs.field(
        factory=LeakyMask, validator=an_instance_of(PaddingStrategy)
    )


@attrs.frozen(kw_only=True, eq=False)
class LeakyLengths(Qwen2_5_VLCollator):
    """Has lengths that join documents."""

    padding: PaddingStrategy = attrs.field(
        factory=OneLength, validator=an_instance_of(PaddingStrategy)
    )


@attrs.frozen(kw_only=True)
class PadsWithOnes(PadAndConcatenate):
    """Pads with another value than it says."""

    def __call__(self, values: Sequence[Tensor], *, key: str) -> Tensor:
        return PadAndConcatenate(value=1)(values, key=key)


@attrs.frozen(kw_only=True)
class JoinsTheFirst(Stack):
    """Stacks the first sample over and over."""

    def __call__(self, values: Sequence[Tensor], *, key: str) -> Tensor:
        return super().__call__([values[0]] * len(values), key=key)


@attrs.frozen(kw_only=True, eq=False)
class HasOwnKeys(Qwen2_5_VLCollator):
    """Has keys of its own beside the pictures', each padded or stacked."""

    family = attrs.evolve(FAMILY, packing=NotPackable("`area` holds for a whole row"))

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        grids = sample.media.get("image_grid_thw")
        areas = torch.zeros(0) if grids is None else grids.prod(dim=1)
        own = {"area": areas.sum().long()}
        if grids is not None:
            own["patches"] = areas[:, None].expand(-1, int(areas.max())).clone()
        joined = {key: value for key, value in own.items() if key in self.family.joins}
        return attrs.evolve(sample, media={**sample.media, **joined})


@attrs.frozen(kw_only=True, eq=False)
class PadsMediaWithOnes(HasOwnKeys):
    """Has a joining rule that pads wrong."""

    family = attrs.evolve(
        HasOwnKeys.family, joins={**FAMILY.joins, "patches": PadsWithOnes(rows="image")}
    )


@attrs.frozen(kw_only=True, eq=False)
class PadsOpenMediaWithOnes(HasOwnKeys):
    """Has a joining rule that pads wrong and does not say how its rows count."""

    family = attrs.evolve(HasOwnKeys.family, joins={**FAMILY.joins, "patches": PadsWithOnes()})


@attrs.frozen(kw_only=True, eq=False)
class StacksTheFirst(HasOwnKeys):
    """Has a joining rule that stacks wrong."""

    family = attrs.evolve(HasOwnKeys.family, joins={**FAMILY.joins, "area": JoinsTheFirst()})


@attrs.frozen(kw_only=True)
class Numbered(Join):
    """Adds the number of its sample to each value."""

    def join(self, values: Sequence[Tensor], key: str) -> Tensor:
        return torch.cat([value + number for number, value in enumerate(values)])


@attrs.frozen(kw_only=True, eq=False)
class PacksWithoutItsJoin(Qwen2_5_VLCollator):
    """Has a join of its own, and concatenates in packs."""

    family = attrs.evolve(FAMILY, joins={**FAMILY.joins, "numbers": Numbered()})

    def postprocess(self, sample: EncodedSample) -> EncodedSample:
        return attrs.evolve(sample, media={**sample.media, "numbers": torch.zeros(1)})

    def pack(self, samples: Sequence[EncodedSample], **options: Any) -> EncodedSample:  # type: ignore[misc]
        pack = super().pack(samples, **options)
        numbers = torch.cat([sample.media["numbers"] for sample in samples])
        return attrs.evolve(pack, media={**pack.media, "numbers": numbers})


CAUGHT_BY: dict[type[Any], str] = {
    PacksWithoutItsJoin: "check_packed_documents_stay_apart",
    ReversesPictures: "check_media_matches_the_processor",
    RemembersPictures: "check_media_matches_the_processor",
    BlackPictures: "check_media_matches_the_processor",
    LosesPatches: "check_media_matches_the_processor",
    ForgetsTypes: "check_token_types_match_the_processor",
    _stacking(
        "IntLabels", "Casts its labels.", _change("labels", Tensor.int)
    ): "check_the_batch_has_its_keys",
    _stacking(
        "FloatLabels", "Casts its labels.", _change("labels", Tensor.float)
    ): "check_the_batch_has_its_keys",
    _stacking(
        "MiscountsPictures",
        "Counts pictures in the wrong rows.",
        _change("n_images_per_sample", lambda counts: counts.flip(0)),
    ): "check_the_batch_has_its_keys",
    _stacking(
        "CountsNothing",
        "Does not count pictures.",
        lambda _, batch: batch.pop("n_images_per_sample", None),
    ): "check_the_batch_has_its_keys",
    _stacking(
        "LosesTheGrid", "Loses a key.", lambda _, batch: batch.pop("image_grid_thw", None)
    ): "check_the_batch_has_its_keys",
    _stacking(
        "LosesLossWeights", "Loses weights.", lambda _, batch: batch.pop("loss_weights", None)
    ): "check_the_batch_has_its_keys",
    _stacking("PadsWithSeven", "Pads with a word.", _pad_with_seven): "check_padding_never_trains",
    _stacking(
        "ReversesPixels",
        "Gives each row the pixels of another.",
        _change("pixel_values", lambda pixels: pixels.flip(0)),
    ): "check_unstacking_returns_the_samples",
    _stacking(
        "ReversesGrids",
        "Gives each picture the grid of another.",
        _change("image_grid_thw", lambda grids: grids.flip(0)),
    ): "check_unstacking_returns_the_samples",
    _stacking(
        "ShiftsLabelsAlone", "Leaves the ids as long as they were.", _shift_labels_alone
    ): "check_shifted_labels_are_the_next",
    PadsMediaWithOnes: "check_unstacking_returns_the_samples",
    PadsOpenMediaWithOnes: "check_unstacking_returns_the_samples",
    StacksTheFirst: "check_unstacking_returns_the_samples",
    OneDocument: "check_packed_documents_stay_apart",
    LeakyLayout: "check_no_document_attends_to_another",
    LeakyLengths: "check_no_document_attends_to_another",
}
