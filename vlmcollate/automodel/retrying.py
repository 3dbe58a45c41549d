"""Replaces samples that fail with other samples."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import torch
from torch.utils.data import Dataset

from vlmcollate.automodel.fake_image import (
    _conversation_has_media,
    inject_fake_image_into_conversation,
)
from vlmcollate.errors import ConfigError, SampleError
from vlmcollate.mixture.row_digest import add_to_digest

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
NEVER_RETRIED = (ConfigError, MemoryError, torch.OutOfMemoryError)
"""The errors that another sample does not avoid."""


def make_robust_collate(
    dataset: Any, collate_fn: Callable[[list[Any]], Any], max_retries: int = 10
) -> Callable[[Sequence[Any]], Any]:
    """Wraps a collate function to replace the samples of failing batches.

    Args:
        dataset: A map-style dataset.
        collate_fn: The function that collates a list of examples.
        max_retries: The maximum number of calls per batch, including the first one.

    Returns:
        The wrapped function. The samples that it draws depend only on those that failed, so they
        are equal in every worker and run.

    Raises:
        RuntimeError: All calls for a batch failed (raised by the returned function).
        ConfigError: The configuration is wrong, or the dataset is empty (raised by the returned
            function, without a retry; so are errors of lacking memory).
    """

    def collate(examples: Sequence[Any]) -> Any:
        batch, last = list(examples), None
        for attempt in range(max_retries):
            try:
                return collate_fn(batch)
            except NEVER_RETRIED:
                raise
            except Exception as error:  # noqa: BLE001  # Automodel retries after any other error
                last = error
                _LOG.warning("collating failed (%d of %d): %s", attempt + 1, max_retries, error)
            if attempt + 1 < max_retries:
                batch = [dataset[_draw(e, attempt, i, dataset)] for i, e in enumerate(examples)]
        raise RuntimeError(
            f"Collate failed after {max_retries} retries. Last error: {last}"
        ) from last

    return collate


def _draw(example: Any, attempt: int, row: int, dataset: Any) -> int:
    """Draws the index of a sample that replaces an example."""
    if not len(dataset):
        raise ConfigError(
            "the dataset is empty: found no samples to replace a batch with; add samples to it"
        )
    digest = hashlib.blake2b(f"{attempt} {row} ".encode(), digest_size=8)
    add_to_digest(example, digest)
    return int.from_bytes(digest.digest(), "big") % len(dataset)


def replacement_indices(index: int, size: int, count: int) -> list[int]:
    """Returns an index and its replacements, the same on every rank.

    Source:
        NeMo Automodel 0.7.0, `_replacement_rng`.
    """
    rng = random.Random(0x9E3779B9 + 2654435761 * int(index))  # noqa: S311  # not for secrets
    return [index, *(rng.randint(0, size - 1) for _ in range(count - 1))][:count]


def read_sample(dataset: Any, index: int) -> Any:
    """Reads a sample; an exception of the dataset becomes a `SampleError`."""
    try:
        return dataset[index]
    except NEVER_RETRIED:
        raise
    except Exception as error:  # the dataset is a user's code, and Automodel replaces any sample
        raise SampleError(
            f"the dataset cannot read this sample: found {error!r}; fix or remove it", index=index
        ) from error


def take_first_valid(size: int, index: int, max_retries: int, take: Callable[[int], _T]) -> _T:
    """Calls a function with an index or, if it is invalid, replacements.

    Args:
        size: The number of samples.
        index: The index of the sample.
        max_retries: The maximum number of calls, including the first one.
        take: The function that reads a sample.

    Returns:
        The first result.

    Raises:
        IndexError: The index is out of range.
        RuntimeError: All calls failed.
    """
    if not -size <= index < size:
        raise IndexError(f"index is out of range: found {index}, expected less than {size}")
    last: SampleError | None = None
    for candidate in replacement_indices(index, size, max_retries):
        try:
            return take(candidate)
        except SampleError as error:
            last = error
            _LOG.warning("sample %d is replaced by another: %s", candidate, error)
    raise RuntimeError(
        f"Failed to load a valid sample after {max_retries} retries. Last error: {last}"
    ) from last


@attrs.define(eq=False)
class RobustDatasetWrapper(Dataset[Any]):
    """Replaces samples that the dataset cannot read with other samples.

    With `preload_media = True`, the fake image is added to a copy of each conversation without
    images and videos. The key `_injected_fake` then lets the collate functions mask the image. The
    collate function loads the media in any case, and `robust_collate` replaces a batch that it
    refuses.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`.
        max_retries: The maximum number of samples that are read, including the first one.
    """

    dataset: Any
    max_retries: int = 10
    preload_media: bool = attrs.field(default=False, init=False)
    processor: Any = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Returns the example, or its replacement."""
        return take_first_valid(len(self), index, self.max_retries, self._read_example)

    def _read_example(self, index: int) -> Any:
        example = read_sample(self.dataset, index)
        conversation = example.get("conversation") if self.preload_media else None
        if not conversation or _conversation_has_media(conversation):
            return example
        faked = inject_fake_image_into_conversation(conversation)
        return {**example, "conversation": faked, "_injected_fake": True}

    def robust_collate(self, collate_fn: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        """Wraps a collate function by `make_robust_collate`."""
        return make_robust_collate(self, collate_fn, self.max_retries)
