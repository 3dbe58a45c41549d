"""Reading groups of rows, which `columns` converted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmcollate.data.columns import FORM, LISTS, REST, arrow_schema
from vlmcollate.data.encoded import document_from_facts
from vlmcollate.data.tensors import Bytes, read_tensors
from vlmcollate.pixels import PixelTable
from vlmcollate.sample import IGNORE_INDEX, Document, EncodedSample

Ints = npt.NDArray[Any]
_READ = (*LISTS, FORM, REST)
"""The columns that are read, in the order of the schema."""
_EDGES = (np.int32, np.int32, np.int32, np.int32, np.int64)
_VALUES = (*LISTS.values(), np.uint8, np.uint8)


def sample_from_raw(rest: Bytes) -> EncodedSample:
    """Restores a sample whose tensors are all in the column `rest`; see `is_raw`.

    Args:
        rest: The bytes of the column, which can be written to; large tensors share their memory.
    """
    tensors, text = read_tensors(rest)
    return _sample(_facts_from_json(text), tensors)


@attrs.frozen(eq=False)
class Group:
    """A group of rows that was read.

    Attributes:
        columns: The edges of the rows and the values of each column that is read.
        is_shared: Whether the bytes of `rest` belong to several rows, whose tensors are copies.
    """

    columns: Sequence[tuple[Ints, Ints]]
    is_shared: bool

    @classmethod
    def of(cls, message: Bytes, rows: int) -> Group:
        """Reads a group from its message.

        Args:
            message: The message; tensors of a group of one row share its memory.
            rows: The number of rows.
        """
        found = _batch_alone(message) if rows == 1 else _batch_of_several(message)
        columns = []
        for column, edge, kind in zip(found, _EDGES, _VALUES, strict=True):
            buffers = column.buffers()
            columns.append((_numbers(buffers[1], edge), _numbers(buffers[-1], kind)))
        if rows == 1:
            columns[-1] = columns[-1][0], _within(message, found[-1].buffers()[-1])
        return cls(columns, rows > 1)

    def sample(self, row: int) -> EncodedSample:
        """Restores a sample."""
        ids, spans, runs, text, rest = (
            values[edges[row] : edges[row + 1]] for edges, values in self.columns
        )
        if not len(text):
            return sample_from_raw(rest.copy() if self.is_shared else rest)
        facts = _facts_from_json(text.tobytes())
        found = _tensors_along_tokens(facts, ids, spans, runs)
        if len(rest):
            tensors, _ = read_tensors(rest.copy() if self.is_shared else rest)
            found |= tensors
        return _sample(facts, found)


def _sample(facts: _Facts, tensors: Mapping[str, Tensor]) -> EncodedSample:
    return EncodedSample(
        tokens={key: tensors[name] for key, name in facts.tokens},
        message_ids=tensors["tokens.message_ids"],
        media_ids=tensors["tokens.media_ids"],
        media={key: tensors[name] for key, name in facts.media},
        media_counts=dict(facts.media_counts),
        label_strategy=facts.label_strategy,
        documents=facts.documents,
        pixel_tables=dict(facts.pixel_tables),
    )


def _tensors_along_tokens(facts: _Facts, ids: Ints, spans: Ints, runs: Ints) -> dict[str, Tensor]:
    """Returns the tensors that are not in the column `rest`."""
    found = {"tokens.input_ids": torch.from_numpy(ids.astype(np.int64))}
    if facts.is_exact:
        labels = np.empty(len(ids), np.int64)
        labels.fill(IGNORE_INDEX)
        bounds = spans.tolist()
        for start, end in zip(bounds[::2], bounds[1::2], strict=True):
            labels[start:end] = ids[start:end]
        found["tokens.labels"] = torch.from_numpy(labels)
    half = len(runs) // 2
    whole = runs[:half].repeat(runs[half:]).reshape(len(facts.runs), len(ids))
    for name, values in zip(facts.runs, whole, strict=True):
        found[name] = torch.from_numpy(values.copy())  # so that it keeps no other tensor
    return found


def _batch_alone(message: Bytes) -> list[Any]:
    """Returns the columns of a message, without copying those that are not compressed."""
    import pyarrow as pa

    batch = pa.ipc.read_record_batch(pa.py_buffer(message), arrow_schema())
    return [batch.column(place) for place in _places()]


def _batch_of_several(message: Bytes) -> list[Any]:
    """Returns the columns of a message; only those are decompressed, in this thread."""
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=_places())
    stream = pa.py_buffer(_schema_bytes() + message.tobytes())
    with pa.ipc.open_stream(stream, options=options) as reader:
        columns: list[Any] = reader.read_next_batch().columns
    return columns


@cache
def _places() -> list[int]:
    return [arrow_schema().get_field_index(name) for name in _READ]


@cache
def _schema_bytes() -> bytes:
    found: bytes = arrow_schema().serialize().to_pybytes()
    return found


def _numbers(buffer: Any, kind: Any) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, kind) if buffer is not None else np.empty(0, kind)


def _within(message: Bytes, buffer: Any) -> Bytes:
    """Returns a buffer as a part of the message, which may be written to, or a copy of it."""
    if buffer is None:
        return np.empty(0, np.uint8)
    start = buffer.address - message.ctypes.data
    if 0 <= start <= len(message) - buffer.size:
        return message[start : start + buffer.size]
    return np.frombuffer(buffer, np.uint8).copy()


@attrs.frozen(eq=False)
class _Facts:
    """The keys of a sample's tensors with the names that they are stored under, and the rest."""

    tokens: Sequence[tuple[str, str]]
    media: Sequence[tuple[str, str]]
    runs: Sequence[str]
    is_exact: bool
    media_counts: Mapping[str, int]
    label_strategy: str
    documents: tuple[Document, ...]
    pixel_tables: Mapping[str, PixelTable]


@lru_cache(maxsize=512)
def _facts_from_json(text: str | bytes) -> _Facts:
    facts = json.loads(text)
    documents = tuple(document_from_facts(**document) for document in facts.pop("documents"))
    tables = facts.pop("pixel_tables").items()
    return _Facts(
        tokens=[(key, f"tokens.{key}") for key in facts.pop("tokens")],
        media=[(key, f"media.{key}") for key in facts.pop("media")],
        runs=[f"tokens.{key}" for key in facts.pop("runs")],
        **facts,
        documents=documents,
        pixel_tables={key: PixelTable.from_dict(table) for key, table in tables},
    )
