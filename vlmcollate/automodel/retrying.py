"""Drawing other samples for those that fail."""

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
from vlmcollate.data.robust import example_digest
from vlmcollate.errors import ConfigError, SampleError

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
NEVER_RETRIED = (ConfigError, MemoryError, torch.OutOfMemoryError)
"""What another draw does not mend."""


def make_robust_collate(
    dataset: Any, collate_fn: Callable[[list[Any]], Any], max_retries: int = 10
) -> Callable[[Sequence[Any]], Any]:
    """Has a batch that fails drawn again, whole, from the dataset.

    Args:
        dataset: A map-style dataset.
        collate_fn: Collates a list of examples.
        max_retries: How often it is called at most, the first time included.

    Returns:
        The function that does so. Which samples it draws follows from those that failed, so that
        every worker and every rerun draws the same.

    Raises:
        RuntimeError: From the function it returns: every try failed.
        ConfigError: From that function, as errors of the configuration and lack of memory are
            raised at once; or the dataset is empty.
    """

    def collate(examples: Sequence[Any]) -> Any:
        batch, last = list(examples), None
        for attempt in range(max_retries):
            try:
                return collate_fn(batch)
            except NEVER_RETRIED:
                raise
            except Exception as error:  # noqa: BLE001  # whatever a user's function raises
                last = error
                _LOG.warning("collating failed (%d of %d): %s", attempt + 1, max_retries, error)
            if attempt + 1 < max_retries:
                batch = [dataset[_draw(e, attempt, i, dataset)] for i, e in enumerate(examples)]
        raise RuntimeError(
            f"Collate failed after {max_retries} retries. Last error: {last}"
        ) from last

    return collate


def _draw(example: Any, attempt: int, place: int, dataset: Any) -> int:
    if not len(dataset):
        raise ConfigError("the dataset is empty, so nothing can be drawn from it; give it samples")
    digest = hashlib.blake2b(f"{attempt} {place} ".encode(), digest_size=8)
    example_digest(example, digest)
    return int.from_bytes(digest.digest(), "big") % len(dataset)


def draws(index: int, size: int, count: int) -> list[int]:
    """The samples to try in order: the one asked for, and then the same others on every rank.

    Source:
        NeMo Automodel 0.7.0, `_replacement_rng`.
    """
    rng = random.Random(0x9E3779B9 + 2654435761 * int(index))  # noqa: S311  # not for secrets
    return [index, *(rng.randint(0, size - 1) for _ in range(count - 1))][:count]


def read_sample(dataset: Any, index: int) -> Any:
    """Reads a sample, with whatever the dataset raises as an error of the sample."""
    try:
        return dataset[index]
    except NEVER_RETRIED:
        raise
    except Exception as error:
        raise SampleError(
            f"the dataset cannot give this sample: found {error!r}; mend or remove it", index=index
        ) from error


def first_good(size: int, index: int, max_retries: int, take: Callable[[int], _T]) -> _T:
    """What `take` returns for a sample, or for the first that is drawn in its place.

    Args:
        size: The samples there are.
        index: The sample that was asked for.
        max_retries: How many samples are tried, this one included.
        take: Reads a sample; a `SampleError` has another tried.

    Raises:
        IndexError: There is no such sample.
        RuntimeError: All of them failed.
    """
    if not -size <= index < size:
        raise IndexError(f"sample {index} of {size}")
    last: SampleError | None = None
    for tried in draws(index, size, max_retries):
        try:
            return take(tried)
        except SampleError as error:
            last = error
            _LOG.warning("sample %d is replaced by another: %s", tried, error)
    raise RuntimeError(
        f"Failed to load a valid sample after {max_retries} retries. Last error: {last}"
    ) from last


@attrs.define(eq=False)
class RobustDatasetWrapper(Dataset[Any]):
    """Gives another sample of a dataset for one that the dataset fails to give.

    With `preload_media = True`, a conversation without images and videos gets the fake image, and
    its example `_injected_fake`, by which the collate functions mask it; the dataset's own example
    is not edited. Media is loaded by the collate function either way, and `robust_collate` draws
    again what it refuses.

    Args:
        dataset: A map-style dataset of `{"conversation": [...]}`.
        max_retries: How many samples are tried.
    """

    dataset: Any
    max_retries: int = 10
    preload_media: bool = attrs.field(default=False, init=False)
    processor: Any = attrs.field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """The example, or one that is drawn in its place."""
        return first_good(len(self), index, self.max_retries, self._example)

    def _example(self, index: int) -> Any:
        example = read_sample(self.dataset, index)
        conversation = example.get("conversation") if self.preload_media else None
        if not conversation or _conversation_has_media(conversation):
            return example
        faked = inject_fake_image_into_conversation(conversation)
        return {**example, "conversation": faked, "_injected_fake": True}

    def robust_collate(self, collate_fn: Callable[[list[Any]], Any]) -> Callable[..., Any]:
        """Has a batch that fails drawn again; see `make_robust_collate`."""
        return make_robust_collate(self, collate_fn, self.max_retries)
