"""Lengths before anything is decoded, and the samples that are too long.

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


def token_counts(dataset: Any, collator: BaseCollator, *, encode_unknown: bool = True) -> Ints:
    """How many tokens each example of a dataset has.

    Args:
        dataset: A map-style dataset of examples.
        collator: Its `token_count` tells by the sizes of media, without decoding.
        encode_unknown: Whether to encode an example whose length its family does not tell by sizes.

    Returns:
        (N,) int64, for `LengthGroupedSampler`, `plan_packs` and `within_length`.

    Raises:
        SampleError: An example is at fault; the error has its index.
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
            count = whole.token_count(example)
            if count is None and encode_unknown:
                count = len(whole.encode(example))
        except LocatedError as error:
            raise error.at(index=index) from error.__cause__
        if count is None:
            raise ConfigError(
                f"{type(collator).__name__} does not tell the length of sample {index} by the "
                "sizes of its media; set encode_unknown=True to encode such samples"
            )
        counts[index] = count
    return counts


@attrs.frozen(eq=False, repr=False)
class WithinLength:
    """Which samples are short enough, and what is left out.

    Attributes:
        kept: The indices of those that stay, rising.
        dropped: The indices of those that are too long, rising.
        lengths: (N,) the tokens of every sample.
        max_length: The most tokens that stay.
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
    """Sorts out the samples that are too long.

    Args:
        lengths: (N,) the samples' tokens, as `token_counts` gives them.
        max_length: The most tokens that stay.

    Returns:
        What is kept, for `torch.utils.data.Subset` or `datasets.Dataset.select`, and what is
        dropped; its text says how much that is.

    Raises:
        ConfigError: `max_length` is no number of tokens, or the lengths are not one a sample.

    Example:
        >>> within_length([5, 900, 7], 512)
        1 of 3 samples are longer than max_length=512 and dropped, with 98.7% of all tokens; the \
longest has 900
    """
    valid_max_length(None, None, max_length)
    counts = whole_numbers("lengths", lengths)
    fits = counts <= max_length
    return WithinLength(np.flatnonzero(fits), np.flatnonzero(~fits), counts, max_length)
