"""Padding to one length for every batch."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from vlmcollate.errors import SampleTooLongError
from vlmcollate.padding.base import PaddingStrategy
from vlmcollate.validators import at_least_one


@attrs.frozen(kw_only=True)
class PadToLength(PaddingStrategy):
    """Pads every batch to the same length, for compiled models and pipeline stages.

    Args:
        side: `"right"` (default) or `"left"`.
        length: The length in tokens.

    Example:
        >>> PadToLength(length=64).padded_length([3, 10])
        64
    """

    length: int = attrs.field(validator=at_least_one)

    def padded_length(self, lengths: Sequence[int]) -> int:
        """See `PaddingStrategy`.

        Raises:
            SampleTooLongError: A sample is longer than `length`.
        """
        longest = max(lengths)
        if longest > self.length:
            raise SampleTooLongError(
                f"{longest} tokens do not fit PadToLength(length={self.length}); raise the length, "
                f"or set max_length={self.length} and on_overlong",
                index=lengths.index(longest),
            )
        return self.length

    def permits(self, length: int) -> bool:
        """See `PaddingStrategy`."""
        return length == self.length
