"""Laws of packs: several documents in one row that do not attend to each other.

Shapes: B packs, L a pack's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import attrs
import torch
from torch import Tensor

from vlmcollate.batch.media import with_float_pixels
from vlmcollate.collator import BaseCollator
from vlmcollate.packing.documents import unpack
from vlmcollate.padding import (
    BlockCausalMask,
    DocumentLayout,
    FlattenedDocuments,
    IndexedMask,
)
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.testing.generators import batches
from vlmcollate.testing.laws.failure_messages import equal_tensors, failure
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.joins import is_built_in
from vlmcollate.testing.laws.subject import Subject

_WINDOW = 4096
"""The window of sliding layers, longer than every drawn pack."""


def check_packed_documents_stay_apart(collator: BaseCollator, trial: Trial) -> None:
    """A pack holds whole documents with their own positions and labels."""
    subject = packable(collator)

    def check(examples: list[Chat]) -> None:
        samples = [subject.collator.encode(messages) for messages in examples]
        pack = subject.collator.pack(samples)
        start = 0
        for number, (sample, found) in enumerate(zip(samples, unpack(pack), strict=True)):
            _check_unpacked(subject, number, sample, found, examples[number])
            span = slice(start, start + len(sample))
            _check_document(subject.collator, pack, span, number, sample, examples[number])
            start += len(sample)
        _check_own_joins(subject.collator, pack, samples, examples)

    forall(trial, batches(short_chats(subject), min_size=2), check)


def check_no_document_attends_to_another(collator: BaseCollator, trial: Trial) -> None:
    """The layout separates the documents of a pack and joins no others."""
    subject = packable(collator)
    packs = with_layout(subject.collator)

    def check(examples: list[Chat]) -> None:
        samples = [packs.encode(messages) for messages in examples]
        batch = packs.stack([packs.pack(samples)])
        lengths = [len(sample) for sample in samples]
        if packs.shift_labels:  # the shift removes the last token of the pack
            lengths[-1] -= 1
        masks = batch.get("attention_mask")
        for mask in masks.values() if isinstance(masks, Mapping) else [masks]:
            problem = None if mask is None else _leak(mask, lengths)
            if problem:
                raise failure(
                    f"{problem} with the attention mask of {type(packs.padding).__name__}",
                    "let each token attend to itself and to the earlier tokens of its document, "
                    "and to nothing else",
                    messages=examples[0],
                    expected=f"documents of {lengths} tokens",
                )
        _check_lengths(batch, lengths, examples)
        if not {"attention_mask", "cu_seq_lens_q", "seq_lens"} & batch.keys():
            raise failure(
                "no tensor of a packed batch separates its documents",
                "let the layout add a mask or the lengths of the documents",
                found=sorted(batch),
            )

    forall(trial, batches(short_chats(subject), min_size=2), check)


def packable(collator: BaseCollator) -> Subject:
    """Returns the subject of a collator that packs."""
    subject = Subject.of(collator)
    if collator.packing_refusal:
        raise NotApplicable(collator.packing_refusal)
    return subject


def short_chats(subject: Subject) -> Any:
    """Draws conversations of few turns and images."""
    return subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))


def with_layout(collator: BaseCollator) -> BaseCollator:
    """Returns the collator with its own layout, or one for its model."""
    if collator.padding.separates_by:
        return collator
    mixing = collator.family.mixing(collator.model_config)
    window = mixing.window or _WINDOW if mixing is not None and mixing.slides else None
    layouts: tuple[DocumentLayout, ...] = (
        BlockCausalMask(sliding_window=window),
        FlattenedDocuments(),
        IndexedMask(),
    )
    supported = [
        layout
        for layout in layouts
        if mixing is not None and layout.separates_by in mixing.separates_by
    ]
    return attrs.evolve(collator, padding=supported[0])


def _check_unpacked(
    subject: Subject, number: int, sample: EncodedSample, found: EncodedSample, messages: Chat
) -> None:
    """Checks that a document is unpacked as the sample that was packed."""
    for key, value in sample.tokens.items():
        expected = value.clone()
        if key in ("labels", "loss_weights"):
            expected[:1] = IGNORE_INDEX if key == "labels" else 0
        if not torch.equal(found.tokens[key], expected):
            raise failure(
                f"{key} of document {number} differs after packing and unpacking",
                "let pack join the samples without changing them",
                messages=messages,
                expected=expected.tolist(),
                found=found.tokens[key].tolist(),
            )
    joins = subject.collator.family.joins
    sample, found = with_float_pixels(sample), with_float_pixels(found)
    kept = [key for key in sample.media if is_built_in(joins[key])]
    if sample.media.keys() != found.media.keys() or not equal_tensors(
        [sample.media[key] for key in kept], [found.media[key] for key in kept]
    ):
        raise failure(
            f"the media of document {number} differs after packing and unpacking",
            "let pack join the samples without changing them",
            messages=messages,
        )


def _check_document(
    collator: BaseCollator,
    pack: EncodedSample,
    span: slice,
    number: int,
    sample: EncodedSample,
    messages: Chat,
) -> None:
    """Checks the positions, number and first label of a document."""
    if not torch.equal(pack.tokens["position_ids"][span], collator.position_ids(sample)):
        raise failure(
            f"the positions of document {number} depend on the other documents",
            "compute position_ids from one sample",
            messages=messages,
        )
    expected = sample.tokens["attention_mask"] * (number + 1)
    if not torch.equal(pack.tokens["document_ids"][span], expected):
        raise failure(
            f"document {number} shares its number in document_ids with another document",
            "leave document_ids to BaseCollator.pack",
            messages=messages,
            expected=number + 1,
            found=sorted(set(pack.tokens["document_ids"][span].tolist())),
        )
    if int(pack.labels[span.start]) != IGNORE_INDEX:
        raise failure(
            f"the first token of document {number} has a label, which would be predicted from the "
            "document before it",
            "leave packing to BaseCollator",
            messages=messages,
        )


def _check_own_joins(
    collator: BaseCollator, pack: EncodedSample, samples: list[EncodedSample], examples: list[Chat]
) -> None:
    """Checks the keys that are joined by a join of the family's own."""
    for key, found in with_float_pixels(pack).media.items():
        join = collator.family.joins[key]
        values = [sample.pixels(key) for sample in samples if key in sample.media]
        if not is_built_in(join) and not equal_tensors([join(values, key=key)], [found]):
            raise failure(
                f"{key} of the pack differs from the join of its documents",
                "let pack join the samples without changing them",
                messages=examples[0],
            )


def _leak(mask: Any, lengths: list[int]) -> str | None:
    """Returns the first error of a mask, or `None`."""
    attends = dense_mask(mask, sum(lengths))
    if attends is None:
        return None
    starts = [0, *accumulate(lengths)]
    for i, (a, b) in enumerate(zip(starts, starts[1:], strict=False)):
        others = torch.cat([attends[a:b, :a], attends[a:b, b:]], dim=1)
        if others.any():
            return f"tokens of document {i} attend to another document"
        if not attends[a:b, a:b].tril().equal(torch.ones(b - a, b - a, dtype=torch.bool).tril()):
            return f"tokens of document {i} do not attend to all earlier tokens of it"
    return None


def dense_mask(mask: Any, length: int, row: int = 0) -> Tensor | None:
    """Converts the mask of a row to (T, T) bool; `None` if its kind is unknown."""
    if isinstance(mask, Tensor) and mask.ndim == 4:
        attends = mask[row, 0] if mask.dtype == torch.bool else mask[row, 0] == 0
    elif isinstance(mask, Tensor):  # the number of each token's document
        attends = (mask[row][:, None] == mask[row][None]) & (mask[row] > 0)
        attends = attends.tril()
    elif hasattr(mask, "mask_mod"):  # the mask of FlexAttention
        batch, head, index = torch.tensor(row), torch.tensor(0), torch.arange(length)
        attends = mask.mask_mod(batch, head, index[:, None], index[None])
    else:
        return None
    return attends[:length, :length]


def _check_lengths(batch: dict[str, Any], lengths: list[int], examples: list[Chat]) -> None:
    """Compares the lengths in the batch with those of the documents."""
    edges = [0, *accumulate(lengths)]
    for key, expected in (
        ("cu_seq_lens_q", edges),
        ("cu_seq_lens_k", edges),
        ("seq_lens", lengths),
        ("seq_lens_padded", None),
    ):
        if key not in batch or expected is None:
            continue
        found = batch[key].flatten().tolist()
        if found[: len(expected)] != expected:
            raise failure(
                f"{key} differs from the lengths of the documents",
                "let the layout count the tokens of each document",
                messages=examples[0],
                expected=expected,
                found=found,
            )
