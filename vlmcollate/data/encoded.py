"""Datasets that encode where they are read, and samples on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from vlmcollate.collator import BaseCollator
from vlmcollate.data.sealing import DamagedError, check_sum, sum_of
from vlmcollate.data.writing import partial_file
from vlmcollate.errors import ConfigError, LocatedError
from vlmcollate.sample import Document, EncodedSample
from vlmcollate.validators import an_instance_of, check_count

_HEAD = b"vlmcollate sample 1, sha256 "


@attrs.frozen(eq=False)
class EncodedDataset(Dataset[EncodedSample]):
    """A map-style dataset whose samples are encoded when they are asked for, in the worker.

    Hand `collator.stack` to the DataLoader as its `collate_fn`; the batches are those of the
    collator itself.

    Args:
        dataset: A map-style dataset of examples.
        collator: Encodes them.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collator = collator_for(tiny_processor())
        >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
        >>> sorted(collator.stack([EncodedDataset([chat], collator)[0]]))
        ['attention_mask', 'input_ids', 'labels', 'mm_token_type_ids']
    """

    dataset: Any
    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> EncodedSample:
        """Encodes one example.

        Raises:
            SampleError: The example is at fault; the error has its index in the dataset.
        """
        return _encoded(self.collator, self.dataset[index], index)


@attrs.define(eq=False)
class PretokenizedIterableDataset(IterableDataset[EncodedSample]):
    """The same for a dataset that is only iterated.

    In the workers of a DataLoader each encodes every so-manieth example, so that each example comes
    once. A `torch.utils.data.IterableDataset`, such as those of `datasets`, is left to share itself
    as its author decided.

    A pass that is broken off begins anew, unless `load_state_dict` was called, after which it goes
    on in the middle: by the dataset's own state where it has one, else by passing over what was
    read.

    Args:
        dataset: An iterable of examples.
        collator: Encodes them.
    """

    dataset: Any
    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))
    _read: int = attrs.field(default=0, init=False)
    _goes_on: bool = attrs.field(default=False, init=False)

    def __iter__(self) -> Iterator[EncodedSample]:
        """Encodes this worker's examples.

        Raises:
            SampleError: An example is at fault; the error has its index in the dataset, or in this
                worker's part of one that shares itself.
        """
        start, self._goes_on = self._read if self._goes_on else 0, False
        worker = None if isinstance(self.dataset, IterableDataset) else get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first = start if hasattr(self.dataset, "load_state_dict") else 0
        for index, example in enumerate(self.dataset, first):
            self._read = index + 1
            if index >= start and index % workers == number:
                yield _encoded(self.collator, example, index)
        self._read = 0

    def set_epoch(self, epoch: int) -> None:
        """Hands the epoch to the dataset, if it knows epochs."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How many examples were read, with the dataset's own state where it has one."""
        state: dict[str, Any] = {"read": self._read}
        if hasattr(self.dataset, "state_dict"):
            state["dataset"] = self.dataset.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where the dataset stood.

        Raises:
            ConfigError: The state is of a dataset with a state of its own, and this one has none,
                or the other way round.
        """
        if ("dataset" in state) != hasattr(self.dataset, "load_state_dict"):
            raise ConfigError(
                "the state is of a dataset with a state of its own and this one has none, or the "
                "other way round; resume with the same dataset"
            )
        check_count("the state's read", state.get("read"), least=0)
        self._read, self._goes_on = state["read"], True
        if "dataset" in state:
            self.dataset.load_state_dict(state["dataset"])


def _encoded(collator: BaseCollator, example: object, index: int) -> EncodedSample:
    try:
        return collator.encode(example)
    except LocatedError as error:
        raise error.at(index=index) from error.__cause__


def save_sample(sample: EncodedSample, path: str | os.PathLike[str]) -> None:
    """Writes an encoded sample to a file, without loss.

    Args:
        sample: What `encode` or `pack` gave.
        path: The file, which appears only when it is complete. It holds a checksum.

    Raises:
        ConfigError: It cannot be written, such as to a full disk.
    """
    data = sample_bytes(sample)
    with partial_file(Path(path)) as file:
        file.write(data)


def load_sample(path: str | os.PathLike[str]) -> EncodedSample:
    """Reads what `save_sample` wrote.

    Raises:
        ConfigError: The file is missing, damaged, or no encoded sample.
    """
    try:
        return sample_from_bytes(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the sample: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def sample_bytes(sample: EncodedSample) -> bytes:
    """An encoded sample as bytes, without loss: a line with a checksum, then safetensors."""
    data = tensor_bytes(sample)
    return _HEAD + sum_of(data).encode() + b"\n" + data


def sample_from_bytes(data: bytes) -> EncodedSample:
    """The sample that `sample_bytes` was given.

    Raises:
        ConfigError: The bytes are no encoded sample, or not those that were written.
    """
    head, _, rest = data.partition(b"\n")
    if not head.startswith(_HEAD):
        raise ConfigError(
            "these bytes are no encoded sample: found no checksum of this vlmcollate at their "
            "start; encode and save the sample again"
        )
    try:
        check_sum(rest, head[len(_HEAD) :].decode("ascii", "replace"), "its bytes were changed")
    except DamagedError as error:
        raise ConfigError(
            f"the encoded sample is damaged: {error}; encode and save it again"
        ) from error
    return sample_from_tensor_bytes(rest)


def tensor_bytes(sample: EncodedSample) -> bytes:
    """An encoded sample in the safetensors format, for bytes whose sum is kept elsewhere."""
    tensors: dict[str, Tensor] = {"message_ids": sample.message_ids, "media_ids": sample.media_ids}
    tensors |= {f"tokens.{key}": value for key, value in sample.tokens.items()}
    tensors |= {f"media.{key}": value for key, value in sample.media.items()}
    facts = {
        "order": [list(sample.tokens), list(sample.media)],
        "media_counts": dict(sample.media_counts),
        "label_strategy": sample.label_strategy,
        "documents": [attrs.asdict(document) for document in sample.documents],
    }
    whole = {key: value.contiguous() for key, value in tensors.items()}
    data: bytes = save(_unshared(whole), metadata={"vlmcollate": json.dumps(facts)})
    return data


def sample_from_tensor_bytes(data: bytes) -> EncodedSample:
    """The sample that `tensor_bytes` was given.

    Raises:
        ConfigError: The bytes are no encoded sample.
    """
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts: Mapping[str, Any] = json.loads(header["__metadata__"]["vlmcollate"])
        tokens, media = facts["order"]
        return EncodedSample(
            tokens={key: tensors[f"tokens.{key}"] for key in tokens},
            message_ids=tensors["message_ids"],
            media_ids=tensors["media_ids"],
            media={key: tensors[f"media.{key}"] for key in media},
            media_counts=facts["media_counts"],
            label_strategy=facts["label_strategy"],
            documents=tuple(_document(**document) for document in facts["documents"]),
        )
    except KeyError as error:
        raise ConfigError(f"these bytes are no encoded sample: they hold no {error}") from error
    except (SafetensorError, ValueError, TypeError) as error:
        raise ConfigError(f"these bytes are no encoded sample: {error}") from error


def _document(**facts: Any) -> Document:
    shapes = {key: tuple(shape) for key, shape in facts.pop("media_shapes").items()}
    keys = tuple(facts.pop("token_keys"))
    return Document(token_keys=keys, media_shapes=shapes, **facts)


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, none of them sharing memory with another, which the format does not allow."""
    seen: set[int] = set()
    out = {}
    for key, value in tensors.items():
        place = value.untyped_storage().data_ptr()
        out[key] = value.clone() if place in seen else value
        seen.add(place)
    return out
