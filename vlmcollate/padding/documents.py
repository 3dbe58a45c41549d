"""The base of the layouts that keep the documents of a pack apart.

Shapes: B packs, L a pack's tokens, T padded tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.padding.base import PaddingStrategy, Separation
from vlmcollate.validators import at_least_one


@attrs.frozen(kw_only=True)
class DocumentLayout(PaddingStrategy):
    """Pads packs of documents to one length, and keeps the documents apart.

    Padding goes to the right. Samples that are not packs count as one document each.

    Args:
        length: The length of every batch, for compiled models; the longest pack's by default.
        multiple_of: The padded length is a multiple of this many tokens, for tensor or context
            parallel ranks.
    """

    separates_by: ClassVar[Separation | None] = "lengths"

    takes_branches: ClassVar[bool] = False
    """Whether `add_attention` keeps the branches of a document apart, see
    `BaseCollator.pack_branches`. They are under `batch["branch_ids"]`, (B, T)."""

    length: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least_one)
    )
    multiple_of: int = attrs.field(default=1, validator=at_least_one)

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other."""
        if self.side != "right":
            raise ConfigError("packs are padded on the right; remove side")
        if self.length is not None and self.length % self.multiple_of:
            raise ConfigError(
                f"length={self.length} is not a multiple of multiple_of={self.multiple_of}"
            )

    def padded_length(self, lengths: Sequence[int]) -> int:
        """See `PaddingStrategy`.

        Raises:
            SampleTooLongError: A pack is longer than `length`.
        """
        longest = max(lengths)
        if self.length is None:
            return -(-longest // self.multiple_of) * self.multiple_of
        if longest > self.length:
            raise SampleTooLongError(
                f"{longest} tokens do not fit {type(self).__name__}(length={self.length}); plan "
                f"the packs for at most {self.length}",
                index=lengths.index(longest),
            )
        return self.length

    def permits(self, length: int) -> bool:
        """See `PaddingStrategy`."""
        return length % self.multiple_of == 0 and self.length in (None, length)

    def __call__(
        self, samples: Sequence[Mapping[str, Tensor]], fill: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Pads every key and adds the inputs of attention.

        Args:
            samples: The token tensors of each pack, with `document_ids` and `position_ids`.
            fill: The padding value of each key; 0 by default.

        Returns:
            The padded keys without `document_ids` and `block_ids`; `position_ids` (B, T), or
            (axes, B, T) if there are several; and the keys that the layout adds.

        Raises:
            ConfigError: The packs have branches, which the layout cannot keep apart.
        """
        if "branch_ids" in samples[0] and not self.takes_branches:
            raise ConfigError(
                f"{type(self).__name__} cannot keep the branches of a pack apart, which need a "
                "mask; choose BlockCausalMask() or FlexBlockMask()"
            )
        batch = super().__call__(samples, fill)
        if batch["position_ids"].ndim == 3:
            batch["position_ids"] = batch["position_ids"].permute(2, 0, 1).contiguous()
        documents, blocks = batch.pop("document_ids"), batch.pop("block_ids", None)
        return self.add_attention(batch, documents, blocks)

    @abstractmethod
    def add_attention(
        self, batch: dict[str, Tensor], documents: Tensor, blocks: Tensor | None
    ) -> dict[str, Tensor]:
        """Adds the inputs of attention; the hook of a layout of your own.

        Args:
            batch: The padded keys of B packs of T tokens.
            documents: (B, T) int64, the document of each token, from 1; 0 for padding.
            blocks: (B, T) int64, the block of each image token, from 1; `None` without blocks.
        """


def refuse_blocks(layout: DocumentLayout, blocks: Tensor | None) -> None:
    """Refuses images whose tokens attend to each other bidirectionally."""
    if blocks is not None:
        raise ConfigError(
            "this model's image tokens attend to each other bidirectionally, which "
            f"{type(layout).__name__} cannot express; use BlockCausalMask or FlexBlockMask"
        )


def places_in_branches(documents: Tensor, branches: Tensor | None) -> Tensor:
    """Returns the place of each token along its own branch, from which distances follow.

    Args:
        documents: (B, T) int64, the document of each token.
        branches: (B, T) int64, the branch of each token, 0 for what all branches of a document
            share; `None` without branches.

    Returns:
        (B, T) int64.
    """
    places = torch.arange(documents.shape[1]).repeat(len(documents), 1)
    if branches is None:
        return places
    for row, ids, branch in zip(places, documents, branches, strict=True):
        start, shared = 0, 0
        for end in segments(ids * (branch.max() + 1) + branch).tolist():
            if branch[start] == 0:
                shared = int(row[start]) + end - start
            else:
                row[start:end] = torch.arange(shared, shared + end - start)
            start = end
    return places


def segments(documents: Tensor) -> Tensor:
    """Returns the ends of the runs of equal ids in (N,), (runs,) int64."""
    changes = (documents[1:] != documents[:-1]).nonzero()[:, 0] + 1
    return torch.cat([changes, changes.new_tensor([len(documents)])])
