"""Datasets that encode on access, and encoded samples on disk."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vlmcollate.collator import BaseCollator
from vlmcollate.data.sealing import DamagedError, checksum, verify_checksum
from vlmcollate.data.tensors import TensorBytes, read_tensors
from vlmcollate.data.writing import partial_file
from vlmcollate.errors import ConfigError, LocatedError
from vlmcollate.mixture import MixtureCollator
from vlmcollate.pixels import PixelTable
from vlmcollate.sample import Document, EncodedSample
from vlmcollate.validators import check_count

_HEAD = b"vlmcollate sample 1, sha256 "


def a_collator(_: object, __: object, value: Any) -> None:
    """Refuses a value that is no collator of examples, or of a mixture's rows."""
    if not isinstance(value, BaseCollator | MixtureCollator):
        raise ConfigError(
            "collator must be a collator of single conversations, such as collator_for(processor); "
            f"found {value!r:.80}"
        )


@attrs.frozen(eq=False)
class EncodedDataset(Dataset[EncodedSample]):
    """A map-style dataset that encodes each sample on access, in the worker.

    Pass `collator.stack` to the DataLoader as its `collate_fn`. The batches are the same as those
    of the collator itself.

    Args:
        dataset: A map-style dataset of examples, or a `Mixture`.
        collator: Encodes them; for a mixture its own.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collator = collator_for(tiny_processor())
        >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
        >>> sorted(collator.stack([EncodedDataset([chat], collator)[0]]))
        ['attention_mask', 'input_ids', 'labels', 'mm_token_type_ids']
    """

    dataset: Any
    collator: BaseCollator | MixtureCollator = attrs.field(validator=a_collator)

    @collator.validator
    def _check_collator(self, _: object, collator: BaseCollator | MixtureCollator) -> None:
        if collator.split_turns:
            raise ConfigError(
                "EncodedDataset has one sample for each index, but split_turns makes several of an "
                "example; use EncodedIterableDataset"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EncodedSample:
        """Encodes one example.

        Raises:
            SampleError: The example is bad; the error has its index in the dataset.
        """
        return _encode(self.collator, self.dataset[index], index)


@attrs.define(eq=False)
class EncodedIterableDataset(IterableDataset[EncodedSample]):
    """An iterable dataset that encodes each sample when it is reached.

    Samples that are too long are dropped if the collator has `on_overlong="drop"`.

    Each of n DataLoader workers encodes every n-th example, so that no example is repeated. A
    `torch.utils.data.IterableDataset`, such as those of `datasets`, distributes its examples among
    workers itself.

    A pass that was interrupted restarts, unless `load_state_dict` was called, after which it
    resumes in the middle: from the dataset's own state if it has one, or by skipping the examples
    that were read.

    Args:
        dataset: An iterable of examples, or an `IterableMixture`.
        collator: Encodes them; for a mixture its own.
    """

    dataset: Any
    collator: BaseCollator | MixtureCollator = attrs.field(validator=a_collator)
    _read: int = attrs.field(default=0, init=False)
    _done: int = attrs.field(default=0, init=False)
    _before: Any = attrs.field(default=None, init=False)
    _resumes: bool = attrs.field(default=False, init=False)

    def __iter__(self) -> Iterator[EncodedSample]:
        """Encodes this worker's examples.

        Raises:
            SampleError: An example is bad; the error has its index in the dataset, or in this
                worker's part of a dataset that distributes its examples.
        """
        # a state is resumed by the iterator that is created next, even if nothing is read from it
        start, done = (self._read, self._done) if self._resumes else (0, 0)
        self._resumes = False
        worker = None if isinstance(self.dataset, IterableDataset) else get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first = start if hasattr(self.dataset, "load_state_dict") else 0
        numbered = self._numbered(iter(self.dataset), first)
        mine = ((k, example) for k, example in numbered if k >= start and k % workers == number)
        return self._encoded(mine, start, done)

    def _encoded(
        self, numbered: Iterator[tuple[int, Any]], start: int, done: int
    ) -> Iterator[EncodedSample]:
        for index, example in numbered:
            yield from self._samples(example, index, done if index == start else 0)
            self._read, self._done, self._before = index + 1, 0, None

    def _numbered(self, examples: Iterator[Any], first: int) -> Iterator[tuple[int, Any]]:
        """Yields examples with their index, and keeps the dataset's state before each."""
        keeps = self.collator.split_turns and hasattr(self.dataset, "state_dict")
        for index in itertools.count(first):
            before = self.dataset.state_dict() if keeps else None
            try:
                example = next(examples)
            except StopIteration:
                return
            self._before = before
            yield index, example

    def _samples(self, example: Any, index: int, done: int) -> Iterator[EncodedSample]:
        """Yields the samples of an example from the one after `done`; the last one ends it."""
        samples = _encode_kept(self.collator, example, index)
        for position, sample in enumerate(samples[done:], done + 1):
            is_last = position == len(samples)
            self._read, self._done = (index + 1, 0) if is_last else (index, position)
            yield sample

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch to the dataset, if it has a `set_epoch`."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Returns the examples and samples read, and the dataset's own state if it has one.

        With `split_turns`, `done` counts the samples of the next example that were read.
        """
        state: dict[str, Any] = {"read": self._read, "done": self._done}
        if hasattr(self.dataset, "state_dict"):
            is_inside = self._done > 0 and self._before is not None
            state["dataset"] = self._before if is_inside else self.dataset.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from a state.

        Raises:
            ConfigError: The state is of a dataset with a state of its own and this one has none,
                or vice versa.
        """
        if ("dataset" in state) != hasattr(self.dataset, "load_state_dict"):
            raise ConfigError(
                "the state is of another kind of dataset: only one of the two has a state of its "
                "own; resume with the same dataset"
            )
        check_count("the state's read", state.get("read"), least=0)
        self._read, self._done, self._resumes = state["read"], state.get("done", 0), True
        if "dataset" in state:
            self.dataset.load_state_dict(state["dataset"])


def _encode_kept(
    collator: BaseCollator | MixtureCollator, example: object, index: int
) -> list[EncodedSample]:
    try:
        return collator.encode_kept(example)
    except LocatedError as error:
        raise error.at(index=index) from error.__cause__


def _encode(collator: BaseCollator | MixtureCollator, example: object, index: int) -> EncodedSample:
    try:
        return collator.encode(example)
    except LocatedError as error:
        raise error.at(index=index) from error.__cause__


def save_sample(sample: EncodedSample, path: str | os.PathLike[str]) -> None:
    """Writes an encoded sample to a file, without loss.

    Args:
        sample: A sample from `encode` or `pack`.
        path: The file, which appears only when it is complete. It holds a checksum.

    Raises:
        ConfigError: The file cannot be written, for example because the disk is full.
    """
    data = sample_to_bytes(sample)
    with partial_file(Path(path)) as file:
        file.write(data)


def load_sample(path: str | os.PathLike[str]) -> EncodedSample:
    """Reads a file that `save_sample` wrote.

    Raises:
        ConfigError: The file is missing or damaged, or holds no encoded sample.
    """
    try:
        return sample_from_bytes(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the sample: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def sample_to_bytes(sample: EncodedSample) -> bytes:
    """Converts a sample to bytes, without loss: a line with a checksum, then safetensors."""
    tensors: dict[str, Tensor] = {"message_ids": sample.message_ids, "media_ids": sample.media_ids}
    tensors |= {f"tokens.{key}": value for key, value in sample.tokens.items()}
    tensors |= {f"media.{key}": value for key, value in sample.media.items()}
    facts = {
        "order": [list(sample.tokens), list(sample.media)],
        "media_counts": dict(sample.media_counts),
        "label_strategy": sample.label_strategy,
        "pixel_tables": {key: table.to_dict() for key, table in sample.pixel_tables.items()},
        "documents": [attrs.asdict(document) for document in sample.documents],
    }
    data = TensorBytes.of(tensors, json.dumps(facts)).to_array()
    return b"".join((_HEAD, checksum(data).encode(), b"\n", data.data))


def sample_from_bytes(data: bytes) -> EncodedSample:
    """Restores a sample from `sample_to_bytes`.

    Raises:
        ConfigError: The bytes are no encoded sample, or differ from those that were written.
    """
    head, _, rest = data.partition(b"\n")
    if not head.startswith(_HEAD):
        raise ConfigError(
            "these bytes are no encoded sample: found no checksum of this version at their start; "
            "encode and save the sample again"
        )
    try:
        verify_checksum(
            rest, head[len(_HEAD) :].decode("ascii", "replace"), "its bytes were changed"
        )
    except DamagedError as error:
        raise ConfigError(
            f"the encoded sample is damaged: {error}; encode and save it again"
        ) from error
    try:
        return _sample_from_tensors(*read_tensors(np.frombuffer(bytearray(rest), np.uint8)))
    except KeyError as error:
        raise ConfigError(f"these bytes are no encoded sample: they hold no {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"these bytes are no encoded sample: {error}") from error


def _sample_from_tensors(tensors: Mapping[str, Tensor], about: str) -> EncodedSample:
    facts = json.loads(about)
    tokens, media = facts["order"]
    return EncodedSample(
        tokens={key: tensors[f"tokens.{key}"] for key in tokens},
        message_ids=tensors["message_ids"],
        media_ids=tensors["media_ids"],
        media={key: tensors[f"media.{key}"] for key in media},
        media_counts=dict(facts["media_counts"]),
        label_strategy=facts["label_strategy"],
        pixel_tables={
            key: PixelTable.from_dict(table) for key, table in facts["pixel_tables"].items()
        },
        documents=tuple(document_from_facts(**document) for document in facts["documents"]),
    )


def document_from_facts(
    *, token_keys: Sequence[str], media_shapes: Mapping[str, Sequence[int]], **facts: Any
) -> Document:
    """Restores a document from `attrs.asdict`, by way of JSON."""
    shapes = {key: tuple(shape) for key, shape in media_shapes.items()}
    return Document(token_keys=tuple(token_keys), media_shapes=shapes, **facts)
