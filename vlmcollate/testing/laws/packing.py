"""Laws of packs: several documents in one row that do not see each other.

Shapes: B packs, L a pack's tokens, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import attrs
import torch
from torch import Tensor

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
from vlmcollate.testing.laws.failure_messages import failure, same
from vlmcollate.testing.laws.for_all import Chat, NotApplicable, Trial, forall
from vlmcollate.testing.laws.subject import Subject

_WINDOW = 4096
"""Of sliding layers, longer than what is drawn."""


def check_packed_documents_stay_apart(collator: BaseCollator, trial: Trial) -> None:
    """A pack holds whole documents with their own positions and labels."""
    subject = _packing(collator)

    def check(examples: list[Chat]) -> None:
        samples = [subject.collator.encode(messages) for messages in examples]
        pack = subject.collator.pack(samples)
        again, start = unpack(pack), 0
        for number, (sample, found) in enumerate(zip(samples, again, strict=True)):
            _check_document(subject, number, sample, found, examples[number])
            here = slice(start, start + len(sample))
            told: dict[str, Any] = {"messages": examples[number]}
            if not torch.equal(
                pack.tokens["position_ids"][here], subject.collator.position_ids(sample)
            ):
                raise failure(
                    f"the positions of document {number} depend on the others",
                    "let position_ids know one sample",
                    **told,
                )
            expected = sample.tokens["attention_mask"] * (number + 1)
            if not torch.equal(pack.tokens["document_ids"][here], expected):
                raise failure(
                    f"document {number} has not its own number, so that it is one with another",
                    "leave document_ids to BaseCollator.pack",
                    expected=number + 1,
                    found=sorted(set(pack.tokens["document_ids"][here].tolist())),
                    **told,
                )
            if int(pack.labels[start]) != IGNORE_INDEX:
                raise failure(
                    f"the first token of document {number} has a label, which the document before "
                    "it would have to predict",
                    "leave packing to BaseCollator",
                    **told,
                )
            start += len(sample)

    forall(trial, batches(_short(subject), min_size=2), check)


def check_no_document_sees_another(collator: BaseCollator, trial: Trial) -> None:
    """The layout separates the documents of a pack and joins no others."""
    subject = _packing(collator)
    packs = _with_layout(subject.collator)

    def check(examples: list[Chat]) -> None:
        samples = [packs.encode(messages) for messages in examples]
        batch = packs.stack([packs.pack(samples)])
        lengths = [len(sample) for sample in samples]
        if packs.shift_labels:  # the pack as a whole is cut
            lengths[-1] -= 1
        masks = batch.get("attention_mask")
        for mask in masks.values() if isinstance(masks, Mapping) else [masks]:
            problem = None if mask is None else _leak(mask, lengths)
            if problem:
                raise failure(
                    f"{problem} by the attention mask of {type(packs.padding).__name__}",
                    "let the mask join tokens of one document alone: each sees itself and what "
                    "stands before it there",
                    messages=examples[0],
                    expected=f"documents of {lengths} tokens",
                )
        _check_lengths(batch, lengths, examples)
        told = {"attention_mask", "cu_seq_lens_q", "seq_lens"}
        if not told & batch.keys():
            raise failure(
                "nothing in a packed batch tells its documents apart",
                "let the layout add a mask or the documents' lengths",
                found=sorted(batch),
            )

    forall(trial, batches(_short(subject), min_size=2), check)


def _packing(collator: BaseCollator) -> Subject:
    subject = Subject.of(collator)
    if collator.packing_refusal:
        raise NotApplicable(collator.packing_refusal)
    return subject


def _short(subject: Subject) -> Any:
    return subject.chats(max_turns=min(2, subject.turns), max_images=min(1, subject.images))


def _with_layout(collator: BaseCollator) -> BaseCollator:
    """The collator with its own layout, or with the first that is right for its model."""
    if collator.padding.separates_by:
        return collator
    mixing = collator.family.mixing(collator.model_config)
    window = mixing.window or _WINDOW if mixing is not None and mixing.slides else None
    layouts: tuple[DocumentLayout, ...] = (
        BlockCausalMask(sliding_window=window),
        FlattenedDocuments(),
        IndexedMask(),
    )
    right = [
        layout
        for layout in layouts
        if mixing is not None and layout.separates_by in mixing.separates_by
    ]
    return attrs.evolve(collator, padding=right[0])


def _check_document(
    subject: Subject, number: int, sample: EncodedSample, found: EncodedSample, messages: Chat
) -> None:
    for key, value in sample.tokens.items():
        expected = value.clone()
        if key in ("labels", "loss_weights"):
            expected[:1] = IGNORE_INDEX if key == "labels" else 0
        if not torch.equal(found.tokens[key], expected):
            raise failure(
                f"document {number} comes out of its pack with other {key}",
                "let pack join, and change nothing",
                messages=messages,
                expected=expected.tolist(),
                found=found.tokens[key].tolist(),
            )
    joins = subject.collator.family.joins
    moves = {key for key in sample.media if type(joins[key]).__name__.startswith("_")}
    kept = [key for key in sample.media if key not in moves]
    if sample.media.keys() != found.media.keys() or not same(
        [sample.media[key] for key in kept], [found.media[key] for key in kept]
    ):
        raise failure(
            f"document {number} comes out of its pack with other media",
            "let pack join, and change nothing",
            messages=messages,
        )


def _leak(mask: Any, lengths: list[int]) -> str | None:
    """What a mask lets see that it should not, or keeps from seeing."""
    sees = _dense(mask, sum(lengths))
    if sees is None:
        return None
    starts = [0, *accumulate(lengths)]
    for i, (a, b) in enumerate(zip(starts, starts[1:], strict=False)):
        others = torch.cat([sees[a:b, :a], sees[a:b, b:]], dim=1)
        if others.any():
            return f"tokens of document {i} see those of another"
        if not sees[a:b, a:b].tril().equal(torch.ones(b - a, b - a, dtype=torch.bool).tril()):
            return f"tokens of document {i} do not see what stands before them in it"
    return None


def _dense(mask: Any, length: int) -> Tensor | None:
    """(T, T) bool, which token sees which, of the masks that there are."""
    if isinstance(mask, Tensor) and mask.ndim == 4:
        sees = mask[0, 0] if mask.dtype == torch.bool else mask[0, 0] == 0
    elif isinstance(mask, Tensor):  # the number of each token's document
        sees = (mask[0][:, None] == mask[0][None]) & (mask[0] > 0)
        sees = sees.tril()
    elif hasattr(mask, "mask_mod"):  # FlexAttention's
        zero, at = torch.tensor(0), torch.arange(length)
        sees = mask.mask_mod(zero, zero, at[:, None], at[None])
    else:
        return None
    return sees[:length, :length]


def _check_lengths(batch: dict[str, Any], lengths: list[int], examples: list[Chat]) -> None:
    """Compares the lengths that a layout states with those of the documents."""
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
                f"{key} are not those of the pack's documents",
                "let the layout count each document's tokens",
                messages=examples[0],
                expected=expected,
                found=found,
            )
