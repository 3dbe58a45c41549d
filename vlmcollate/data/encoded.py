"""Datasets that encode on access, and encoded samples on disk."""

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
from vlmcollate.data.sealing import DamagedError, checksum, verify_checksum
from vlmcollate.data.writing import partial_file
from vlmcollate.errors import ConfigError, LocatedError
from vlmcollate.sample import Document, EncodedSample
from vlmcollate.validators import an_instance_of, check_count

_HEAD = b"vlmcollate sample 1, sha256 "


@attrs.frozen(eq=False)
class EncodedDataset(Dataset[EncodedSample]):
    """A map-style dataset that encodes each sample on access, in the worker.

    Pass `collator.stack` to the DataLoader as its `collate_fn`. The batches are the same as those
    of the collator itself.

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
            SampleError: The example is bad; the error has its index in the dataset.
        """
        return _encode(self.collator, self.dataset[index], index)


@attrs.define(eq=False)
class EncodedIterableDataset(IterableDataset[EncodedSample]):
    """An iterable dataset that encodes each sample when it is reached.

    Each of n DataLoader workers encodes every n-th example, so that no example is repeated. A
    `torch.utils.data.IterableDataset`, such as those of `datasets`, distributes its examples among
    workers itself.

    A pass that was interrupted restarts, unless `load_state_dict` was called, after which it
    resumes in the middle: from the dataset's own state if it has one, or by skipping the examples
    that were read.

    Args:
        dataset: An iterable of examples.
        collator: Encodes them.
    """

    dataset: Any
    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))
    _read: int = attrs.field(default=0, init=False)
    _resumes: bool = attrs.field(default=False, init=False)

    def __iter__(self) -> Iterator[EncodedSample]:
        """Encodes this worker's examples.

        Raises:
            SampleError: An example is bad; the error has its index in the dataset, or in this
                worker's part of a dataset that distributes its examples.
        """
        start, self._resumes = self._read if self._resumes else 0, False
        worker = None if isinstance(self.dataset, IterableDataset) else get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        first = start if hasattr(self.dataset, "load_state_dict") else 0
        for index, example in enumerate(self.dataset, first):
            self._read = index + 1
            if index >= start and index % workers == number:
                yield _encode(self.collator, example, index)
        self._read = 0

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch to the dataset, if it has a `set_epoch`."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of examples read, and the dataset's own state if it has one."""
        state: dict[str, Any] = {"read": self._read}
        if hasattr(self.dataset, "state_dict"):
            state["dataset"] = self.dataset.state_dict()
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
        self._read, self._resumes = state["read"], True
        if "dataset" in state:
            self.dataset.load_state_dict(state["dataset"])


def _encode(collator: BaseCollator, example: object, index: int) -> EncodedSample:
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
    data = sample_to_tensor_bytes(sample)
    return _HEAD + checksum(data).encode() + b"\n" + data


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
    return sample_from_tensor_bytes(rest)


def sample_to_tensor_bytes(sample: EncodedSample) -> bytes:
    """Converts a sample to safetensors, for bytes whose checksum is stored elsewhere."""
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
    """Restores a sample from `sample_to_tensor_bytes`.

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
    """Copies tensors that share memory with another, which safetensors does not allow."""
    seen: set[int] = set()
    out = {}
    for key, value in tensors.items():
        address = value.untyped_storage().data_ptr()
        out[key] = value.clone() if address in seen else value
        seen.add(address)
    return out
