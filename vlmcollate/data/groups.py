"""Reading groups of rows, which `columns` converted.

Shapes: L a sample's tokens, K the tensors that are stored as runs, R all of their runs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
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

Column = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""The edges of the rows, and the values."""
_READ = (*LISTS, FORM, REST)
"""The columns that are read, in the order of the schema."""
_EDGES = (np.int32, np.int32, np.int32, np.int32, np.int64)
_VALUES = (*LISTS.values(), np.uint8, np.uint8)
_PLACES = ((1, 3), (5, 7), (9, 11), (13, 14), (-2, -1))
"""The buffers of these columns, among all buffers of a message."""
_PREFIX = 8
"""The bytes of a message before its metadata: a mark, and the size of the metadata."""


@attrs.frozen(eq=False)
class Group:
    """A group of rows that was read.

    Attributes:
        ids: The column `input_ids`.
        spans: The column `label_spans`.
        runs: The column `runs`.
        forms: The column `form`.
        rests: The column `rest`.
        is_shared: Whether tensors are copies of the bytes of `rest`, since these belong to several
            rows or cannot be written to.
    """

    ids: Column
    spans: Column
    runs: Column
    forms: Column
    rests: Column
    is_shared: bool

    @classmethod
    def of(cls, message: Bytes, rows: int) -> Group:
        """Reads a group from its message.

        Args:
            message: The message; tensors of a group of one row share its memory.
            rows: The number of rows.
        """
        plain = _plain_columns(message)
        columns = _decompressed_columns(message) if plain is None else plain
        return cls(*columns, is_shared=plain is None or rows > 1)

    def sample(self, row: int) -> EncodedSample:
        """Restores a sample."""
        form = _form_from_json(_values(self.forms, row).tobytes())
        found = self._tensors_along_tokens(form, row)
        media: Mapping[str, Tensor] = {}
        tables: Mapping[str, PixelTable] = {}
        rest = _values(self.rests, row)
        if len(rest):
            tensors, text = read_tensors(rest.copy() if self.is_shared else rest)
            facts = _rest_from_json(text)
            found |= {key: tensors[f"tokens.{key}"] for key in facts.tokens}
            media = {key: tensors[f"media.{key}"] for key in facts.media}
            tables = dict(facts.pixel_tables)
        return EncodedSample(
            tokens={key: found[key] for key in form.tokens},
            message_ids=found["message_ids"],
            media_ids=found["media_ids"],
            media=media,
            media_counts=dict(form.media_counts),
            label_strategy=form.label_strategy,
            documents=form.documents,
            pixel_tables=tables,
        )

    def _tensors_along_tokens(self, form: _Form, row: int) -> dict[str, Tensor]:
        """Returns the tensors that are not in the column `rest`."""
        ids, runs = _values(self.ids, row), _values(self.runs, row)
        found = {"input_ids": ids.astype(np.int64)}
        if form.is_exact:
            labels = found["labels"] = np.empty(len(ids), np.int64)
            labels.fill(IGNORE_INDEX)
            for start, end in _values(self.spans, row).reshape(-1, 2).tolist():
                labels[start:end] = ids[start:end]
        half = len(runs) // 2
        whole = runs[:half].repeat(runs[half:]).reshape(len(form.runs), len(ids))
        for name, values in zip(form.runs, whole, strict=True):
            found[name] = values.copy()  # a tensor that is kept keeps no other
        return {name: torch.from_numpy(values) for name, values in found.items()}


def _values(column: Column, row: int) -> npt.NDArray[Any]:
    edges, values = column
    return values[edges[row] : edges[row + 1]]


def _plain_columns(message: Bytes) -> list[Column] | None:
    """Returns the columns of a message without copying, or `None` if they are compressed.

    This takes a tenth of the time of Arrow, which reads all columns.

    Source: https://arrow.apache.org/docs/format/Columnar.html, "Encapsulated message format", and
    https://flatbuffers.dev/internals for the tables of the metadata.
    """

    def number(kind: str, at: int) -> int:
        found: int = struct.unpack_from(kind, message, at)[0]
        return found

    def field(table: int, place: int) -> int:
        """Returns the position of a field of a table, or 0 if the table has none."""
        names = table - number("<i", table)
        at = 4 + 2 * place
        offset = number("<H", names + at) if at < number("<H", names) else 0
        return table + offset if offset else 0

    def target(at: int) -> int:
        return at + number("<I", at)

    body = _PREFIX + number("<i", 4)
    batch = target(field(target(_PREFIX), 2))
    if field(batch, 3):  # compression
        return None
    buffers = target(field(batch, 2))
    places = np.frombuffer(message, "<i8", 2 * number("<I", buffers), buffers + 4).reshape(-1, 2)

    def values(place: int, kind: Any) -> npt.NDArray[Any]:
        start, size = places[place].tolist()
        return message[body + start : body + start + size].view(kind)

    return [
        (values(edges, edge_kind), values(data, kind))
        for (edges, data), edge_kind, kind in zip(_PLACES, _EDGES, _VALUES, strict=True)
    ]


def _decompressed_columns(message: Bytes) -> list[Column]:
    """Returns the columns of a message; only those are decompressed, in this thread."""
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=_places())
    stream = pa.py_buffer(_schema_bytes() + message.tobytes())
    with pa.ipc.open_stream(stream, options=options) as reader:
        columns = [column.buffers() for column in reader.read_next_batch().columns]
    return [
        (_numbers(found[1], edge_kind), _numbers(found[-1], kind))
        for found, edge_kind, kind in zip(columns, _EDGES, _VALUES, strict=True)
    ]


@cache
def _places() -> list[int]:
    return [arrow_schema().get_field_index(name) for name in _READ]


@cache
def _schema_bytes() -> bytes:
    found: bytes = arrow_schema().serialize().to_pybytes()
    return found


def _numbers(buffer: Any, kind: Any) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, kind) if buffer is not None else np.empty(0, kind)


@attrs.frozen(eq=False)
class _Form:
    """The names of a sample's tensors, and what else is not a tensor."""

    tokens: tuple[str, ...]
    runs: tuple[str, ...]
    is_exact: bool
    media_counts: Mapping[str, int]
    label_strategy: str
    documents: tuple[Document, ...]


@lru_cache(maxsize=256)
def _form_from_json(text: bytes) -> _Form:
    facts = json.loads(text)
    documents = tuple(document_from_facts(**document) for document in facts.pop("documents"))
    return _Form(**facts, documents=documents)


@attrs.frozen(eq=False)
class _Rest:
    """The names of the tensors in the column `rest`, and the tables of their pixels."""

    tokens: tuple[str, ...]
    media: tuple[str, ...]
    pixel_tables: Mapping[str, PixelTable]


@lru_cache(maxsize=256)
def _rest_from_json(text: str) -> _Rest:
    facts = json.loads(text)
    tables = facts.pop("pixel_tables")
    return _Rest(
        **facts, pixel_tables={key: PixelTable.from_dict(table) for key, table in tables.items()}
    )
