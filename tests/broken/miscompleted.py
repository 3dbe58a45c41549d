"""Collators that are wrong for several completions or embedded inputs, each in one way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from tests.broken.misquoted import WithTools
from vlmcollate import EncodedSample
from vlmcollate.conversation import Conversation
from vlmcollate.padding import BlockCausalMask, PaddingStrategy
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True, eq=False)
class EncodesTwoAlike(WithTools):
    """Encodes two of the conversations that share messages, the second for all behind it."""

    def sharing(  # type: ignore[misc]  # final
        self, conversations: Sequence[Conversation]
    ) -> Callable[[Conversation], EncodedSample]:
        encode = super().sharing(conversations)
        last = [conversation.messages[-1] for conversation in conversations]

        def encoded(conversation: Conversation) -> EncodedSample:
            answer = conversation.messages[-1]
            place = min(last.index(answer), 1) if answer in last else 0
            return encode(conversations[place])

        return encoded


@attrs.frozen(kw_only=True, eq=False)
class StacksSharedMediaOnce(WithTools):
    """Takes media tensors that several samples share for those of one."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Any]:  # type: ignore[misc]
        seen: set[int] = set()
        kept = []
        for sample in samples:
            places = {value.data_ptr() for value in sample.media.values()}
            kept.append(attrs.evolve(sample, media={}) if places & seen else sample)
            seen |= places
        return super().stack(kept)


@attrs.frozen(kw_only=True, eq=False)
class TrainsTheFirstBranch(WithTools):
    """Trains the first of several branches alone."""

    def pack_branches(self, samples: Sequence[EncodedSample]) -> EncodedSample:  # type: ignore[misc]
        pack = super().pack_branches(samples)
        labels = pack.labels.masked_fill(pack.tokens["branch_ids"] > 1, IGNORE_INDEX)
        return attrs.evolve(pack, tokens={**pack.tokens, "labels": labels})


@attrs.frozen(kw_only=True, eq=False)
class CountsOnInBranches(WithTools):
    """Gives each branch positions behind those of the branch before it."""

    def pack_branches(self, samples: Sequence[EncodedSample]) -> EncodedSample:  # type: ignore[misc]
        pack = super().pack_branches(samples)
        positions = torch.arange(len(pack))[:, None].expand_as(pack.tokens["position_ids"])
        return attrs.evolve(pack, tokens={**pack.tokens, "position_ids": positions.clone()})


@attrs.frozen(kw_only=True)
class MaskWithoutBranches(BlockCausalMask):
    """Lets every branch see those before it."""

    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        plain = {key: value for key, value in batch.items() if key != "branch_ids"}
        return {**batch, **super().add_attention(plain, documents, blocks)}


@attrs.frozen(kw_only=True, eq=False)
class BranchesSeeEachOther(WithTools):
    """Has a mask that joins branches."""

    padding: PaddingStrategy = attrs.field(
        factory=MaskWithoutBranches, validator=an_instance_of(PaddingStrategy)
    )


@attrs.frozen(kw_only=True, eq=False)
class BlindQuestions(WithTools):
    """Loses what the images of a prompt show, if no answer follows."""

    def _encode_asked(self, *arguments: Any) -> Any:
        piece = super()._encode_asked(*arguments)
        media = {
            key: torch.zeros_like(value) if key == "pixel_values" else value
            for key, value in piece.sample.media.items()
        }
        return attrs.evolve(piece, sample=attrs.evolve(piece.sample, media=media))


@attrs.frozen(kw_only=True, eq=False)
class SortsUntrainedRows(WithTools):
    """Sorts rows by length if not all of them train, as a batch of evaluation may."""

    def stack(self, samples: Sequence[EncodedSample]) -> dict[str, Any]:  # type: ignore[misc]
        if all((sample.labels != IGNORE_INDEX).any() for sample in samples):
            return super().stack(samples)
        return super().stack(sorted(samples, key=len))


CAUGHT_BY: dict[type[Any], str] = {
    EncodesTwoAlike: "check_completions_are_encoded_as_alone",
    StacksSharedMediaOnce: "check_completions_are_encoded_as_alone",
    TrainsTheFirstBranch: "check_a_shared_prompt_keeps_completions_apart",
    CountsOnInBranches: "check_a_shared_prompt_keeps_completions_apart",
    BranchesSeeEachOther: "check_a_shared_prompt_keeps_completions_apart",
    BlindQuestions: "check_embedded_inputs_are_encoded_as_alone",
    SortsUntrainedRows: "check_embedded_inputs_are_encoded_as_alone",
}
