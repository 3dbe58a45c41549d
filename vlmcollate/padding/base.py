"""The interface of padding strategies.

Shapes: B samples, L a sample's tokens, T padded tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor

from vlmcollate.errors import ConfigError
from vlmcollate.validators import WithOptions

Side = Literal["right", "left"]
Separation = Literal["mask", "positions", "lengths"]


@attrs.frozen(kw_only=True)
class PaddingStrategy(WithOptions, ABC):
    """Pads the token tensors of several samples to one length.

    Args:
        side: The side of the padding. Training needs `"right"`, whatever the tokenizer is set to
            for generation.
    """

    separates_by: ClassVar[Separation | None] = None
    """The means that keeps the documents of a pack apart: a `"mask"` for each pair of tokens;
    `"positions"` that restart, with all inputs of a model's kernels; the documents' `"lengths"` or
    numbers, for a trainer with its own attention; `None` if there is none."""

    side: Side = attrs.field(default="right")

    @side.validator
    def _check_side(self, _: object, value: str) -> None:
        if value not in ("right", "left"):
            raise ConfigError(f"side must be 'right' or 'left', not {value!r}")

    @abstractmethod
    def padded_length(self, lengths: Sequence[int]) -> int:
        """Returns the length T of a batch whose samples have these lengths.

        It is the smallest length that the strategy permits and that holds the longest sample.
        """

    def permits(self, length: int) -> bool:
        """Returns whether a batch may have a length; by default any.

        A strategy whose `padded_length` rounds up declares here the lengths that it rounds up to.

        Args:
            length: A length T.
        """
        del length
        return True

    def __call__(
        self, samples: Sequence[Mapping[str, Tensor]], fill: Mapping[str, float]
    ) -> dict[str, Tensor]:
        """Pads every key.

        Args:
            samples: The token tensors of each sample, all with the same keys, each (L,) or
                (L, ...).
            fill: The padding value of each key; 0 by default.

        Returns:
            Contiguous tensors (B, T) or (B, T, ...) of the samples' dtypes; further axes are padded
            at their end to the batch's largest.
        """
        lengths = [len(sample["input_ids"]) for sample in samples]
        total = self.padded_length(lengths)
        return {
            key: self._pad([sample[key] for sample in samples], total, fill.get(key, 0))
            for key in samples[0]
        }

    def _pad(self, rows: Sequence[Tensor], total: int, value: float) -> Tensor:
        largest = [max(sizes) for sizes in zip(*(row.shape[1:] for row in rows), strict=True)]
        out = torch.full((len(rows), total, *largest), value, dtype=rows[0].dtype)
        targets: Any = out
        values: Sequence[Any] = rows
        if all(row.dtype in _OF_NUMPY and row.is_cpu and not row.requires_grad for row in rows):
            targets, values = out.numpy(), [row.numpy() for row in rows]  # copies in less time
        for target, row in zip(targets, values, strict=True):
            start = total - len(row) if self.side == "left" else 0
            target[(slice(start, start + len(row)), *map(slice, row.shape[1:]))] = row
        return out


_OF_NUMPY = frozenset({torch.int64, torch.int32, torch.float32, torch.bool})
