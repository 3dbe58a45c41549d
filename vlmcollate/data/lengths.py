"""Lengths of samples before any media is decoded, and samples that are too long.

Shapes: N examples.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, LocatedError
from vlmcollate.validators import max_length as valid_max_length
from vlmcollate.validators import whole_numbers

Ints = npt.NDArray[np.int64]


def token_counts(
    dataset: Any,
    collator: BaseCollator,
    *,
    encode_unknown: bool = True,
    longest_turn: bool = False,
) -> Ints:
    """Counts the tokens of each example of a dataset.

    Args:
        dataset: A map-style dataset of examples.
        collator: Counts by the sizes of media with `token_count`, without decoding.
        encode_unknown: Whether to encode an example whose length is not known from sizes alone.
        longest_turn: Whether to count only the longest sample that `split_turns` makes of an
            example, as `within_length` needs it, instead of all of them.

    Returns:
        (N,) int64, for `LengthGroupedSampler`, `plan_packs` and `within_length`.

    Raises:
        SampleError: An example is bad; the error has its index.
        ConfigError: A length is not known, with `encode_unknown=False`.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
        >>> token_counts([chat], collator_for(tiny_processor())).tolist()
        [15]
    """
    whole = attrs.evolve(collator, max_length=None, on_overlong="raise")
    counts = np.empty(len(dataset), np.int64)
    for index in range(len(dataset)):
        example = dataset[index]
        try:
            found = whole.turn_token_counts(example)
            if found is None and encode_unknown:
                found = [len(sample) for sample in whole.encode_all(example)]
        except LocatedError as error:
            raise error.at(index=index) from error.__cause__
        if found is None:
            raise ConfigError(
                f"{type(collator).__name__} cannot count the tokens of sample {index} by the sizes "
                "of its media; set encode_unknown=True to encode such samples"
            )
        counts[index] = max(found) if longest_turn else sum(found)
    return counts


@attrs.frozen(eq=False, repr=False)
class WithinLength:
    """The samples within a maximum length, and those that are too long.

    Attributes:
        kept: The indices of the samples within the length, in ascending order.
        dropped: The indices of the samples that are too long, in ascending order.
        lengths: (N,) the tokens of every sample.
        max_length: The maximum tokens of a kept sample.
    """

    kept: Ints
    dropped: Ints
    lengths: Ints
    max_length: int

    def __repr__(self) -> str:
        tokens, total = int(self.lengths[self.dropped].sum()), max(int(self.lengths.sum()), 1)
        longest = int(self.lengths.max(initial=0))
        return (
            f"{len(self.dropped)} of {len(self.lengths)} samples are longer than "
            f"max_length={self.max_length} and dropped, with {tokens / total:.1%} of all tokens; "
            f"the longest has {longest}"
        )


def within_length(lengths: npt.ArrayLike, max_length: int) -> WithinLength:
    """Separates the samples that are too long from the others.

    Args:
        lengths: (N,) the tokens of each sample, such as from `token_counts`.
        max_length: The maximum tokens of a kept sample.

    Returns:
        The indices to keep, for `torch.utils.data.Subset` or `datasets.Dataset.select`, and those
        to drop; printing it shows how much is dropped.

    Raises:
        ConfigError: `max_length` is no number of tokens, or the lengths are not one per sample.

    Example:
        >>> within_length([5, 900, 7], 512)
        1 of 3 samples are longer than max_length=512 and dropped, with 98.7% of all tokens; the \
longest has 900
    """
    valid_max_length(None, None, max_length)
    counts = whole_numbers("lengths", lengths)
    fits = counts <= max_length
    return WithinLength(np.flatnonzero(fits), np.flatnonzero(~fits), counts, max_length)
