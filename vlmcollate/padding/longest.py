"""Padding to the longest sample of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vlmcollate.padding.base import PaddingStrategy
from vlmcollate.validators import at_least_one


@attrs.frozen(kw_only=True)
class PadToLongest(PaddingStrategy):
    """Pads to the longest sample, rounded up.

    Args:
        side: `"right"` (default) or `"left"`.
        multiple_of: The padded length is the next multiple of this many tokens.

    Example:
        >>> PadToLongest(multiple_of=8).padded_length([3, 10])
        16
    """

    multiple_of: int = attrs.field(default=1, validator=at_least_one)

    def padded_length(self, lengths: Sequence[int]) -> int:
        """See `PaddingStrategy`."""
        return -(-max(lengths) // self.multiple_of) * self.multiple_of

    def permits(self, length: int) -> bool:
        """See `PaddingStrategy`."""
        return length % self.multiple_of == 0
