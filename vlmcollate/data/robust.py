"""Keeping a training running when samples are bad."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, SampleError, TooManyFailuresError
from vlmcollate.mixture import MixtureCollator
from vlmcollate.mixture.row_digest import add_to_digest
from vlmcollate.preference.base import PreferenceBase
from vlmcollate.validators import at_least_one, one_of

ErrorPolicy = Literal["raise", "skip", "dummy_sample"]
Collator = BaseCollator | MixtureCollator | PreferenceBase[Any]


@attrs.frozen(eq=False)
class Resample:
    """Replaces a bad sample with another one of a dataset.

    Args:
        dataset: A map-style dataset with at least one sample.
        seed: The seed of the draw, together with the bad sample; use the same in every process.
        max_retries: The maximum number of samples to try in its place.

    Raises:
        ConfigError: The dataset is empty or has no length.

    Example:
        `RobustCollator(collator=collate, on_error=Resample(dataset, seed=1))`
    """

    dataset: Any = attrs.field()
    seed: int = attrs.field(default=0, kw_only=True)
    max_retries: int = attrs.field(default=10, validator=at_least_one, kw_only=True)

    @dataset.validator
    def _check_dataset(self, _: attrs.Attribute[Any], value: Any) -> None:
        if not (hasattr(value, "__len__") and hasattr(value, "__getitem__") and len(value)):
            raise ConfigError(
                "Resample needs a map-style dataset that holds samples; this "
                f"{type(value).__name__} is empty, or has no length"
            )

    def draws(self, example: object) -> list[int]:
        """Draws indices to try for a bad example, the same in every worker and on every rank."""
        drawn = []
        for attempt in range(self.max_retries):
            digest = hashlib.blake2b(digest_size=8)
            digest.update(f"{self.seed} {attempt} ".encode())
            add_to_digest(example, digest)
            drawn.append(int.from_bytes(digest.digest(), "big") % len(self.dataset))
        return drawn


@attrs.define(kw_only=True, eq=False)
class RobustCollator:
    """Collates batches that contain bad samples, counts these, and stops after too many in a row.

    Only a `SampleError` counts as a bad sample. An error of the configuration, a bug, lack of
    memory or an interrupt passes through.

    Args:
        collator: The collator, also of a mixture, of preferences or of other objectives.
        on_error: The policy for bad samples: `"raise"`; `"skip"`, which makes the batch smaller;
            `"dummy_sample"`, which replaces them with the collator's `dummy_sample`, so that the
            batch keeps its rows and no rank waits for another, even if a whole batch is bad, and
            which collators of preferences and other objectives do not have; or
            `Resample(dataset)`.
        max_failures: The maximum number of bad samples in a row, across batches, before
            `TooManyFailuresError`. Each worker of a DataLoader counts its own.

    Example:
        >>> from vlmcollate.testing import tiny_processor
        >>> from vlmcollate import collator_for
        >>> robust = RobustCollator(collator=collator_for(tiny_processor()), on_error="skip")
        >>> good = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
        >>> int(robust([good, "no conversation"])["n_failed_samples"])
        1
    """

    collator: Collator = attrs.field()
    on_error: ErrorPolicy | Resample = attrs.field(default="skip")
    max_failures: int = attrs.field(default=100, validator=at_least_one)
    _in_a_row: int = attrs.field(default=0, init=False)

    @collator.validator
    def _check_collator(self, _: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, BaseCollator | MixtureCollator | PreferenceBase):
            raise ConfigError(
                f"collator must be a collator, such as collator_for(processor); found {value!r:.80}"
            )

    @on_error.validator
    def _check_on_error(self, option: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, Resample):
            one_of("raise", "skip", "dummy_sample")(self, option, value)

    def __attrs_post_init__(self) -> None:
        """Refuses `"dummy_sample"` for a collator that has none, or drops or splits samples."""
        if self.on_error != "dummy_sample":
            return
        if isinstance(self.collator, PreferenceBase):
            raise ConfigError(
                f'on_error="dummy_sample" has no row that trains nothing for '
                f'{type(self.collator).__name__}; set on_error="skip", or to Resample(dataset), '
                "which keeps the number of rows"
            )
        if self.collator.split_turns:
            raise ConfigError(
                'on_error="dummy_sample" keeps the rows of a batch, but a collator with '
                'split_turns makes several rows of an example; set on_error="skip"'
            )
        if self.collator.on_overlong == "drop":
            raise ConfigError(
                'on_error="dummy_sample" keeps the rows of a batch, but a collator with '
                'on_overlong="drop" drops some; set on_overlong="raise", which also replaces '
                "samples that are too long"
            )

    def __call__(self, examples: Sequence[object]) -> dict[str, Tensor]:
        """Collates examples into a batch.

        Args:
            examples: Examples of the dataset.

        Returns:
            The collator's batch with `n_failed_samples`, a () int64 tensor; 0 if all were good.

        Raises:
            TooManyFailuresError: More than `max_failures` samples in a row have failed.
            EmptyBatchError: There is no example, or with `"skip"` no good one.
            SampleError: With `on_error="raise"`.
        """
        if self.on_error == "raise":
            return {**self.collator(examples), "n_failed_samples": torch.tensor(0)}
        failed: list[int] = []

        def replace(error: SampleError) -> list[Any]:
            index = error.index or 0
            if index != (failed[-1] + 1 if failed else 0):  # a good one was in between
                self._in_a_row = 0
            failed.append(index)
            self._in_a_row += 1
            return self._replace(error, examples[index])

        batch = self.collator.collate(examples, on_error=replace)
        if not failed or failed[-1] != len(examples) - 1:
            self._in_a_row = 0
        return {**batch, "n_failed_samples": torch.tensor(len(failed))}

    def _replace(self, error: SampleError, example: object) -> list[Any]:
        if self._in_a_row > self.max_failures:
            raise TooManyFailuresError(
                f"{self._in_a_row} samples in a row failed, more than "
                f"max_failures={self.max_failures}; the last: {error}"
            ) from error
        if self.on_error == "dummy_sample" and not isinstance(self.collator, PreferenceBase):
            return [self.collator.dummy_sample()]
        if isinstance(self.on_error, Resample):
            return self._draw(self.on_error, example, error)
        return []

    def _draw(self, policy: Resample, example: object, error: SampleError) -> list[Any]:
        last = error
        for index in policy.draws(example):
            try:
                return self.collator.encode_all(policy.dataset[index])
            except SampleError as again:
                last = again
        raise TooManyFailuresError(
            f"{policy.max_retries} other samples failed in place of this one: {error}; the last: "
            f"{last}"
        ) from last
