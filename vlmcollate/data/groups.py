"""Reading groups of rows, which `columns` converted.

Shapes: L a sample's tokens, K the tensors that are stored as runs, R all of their runs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
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
_Row = tuple[Ints, Ints, Ints, bytes, Bytes]
"""A row's `input_ids`, `label_spans`, `runs`, `form` and `rest`."""
_PREFIX = 8
"""The bytes of a message before its metadata: a mark, and the size of the metadata."""


@attrs.frozen(eq=False)
class Group:
    """A group of rows that was read.

    Attributes:
        rows: Returns a row.
        is_shared: Whether tensors are copies of the bytes of `rest`, since these belong to several
            rows or cannot be written to.
    """

    rows: Callable[[int], _Row]
    is_shared: bool

    @classmethod
    def of(cls, message: Bytes, rows: int) -> Group:
        """Reads a group from its message.

        Args:
            message: The message; tensors of a group of one row share its memory.
            rows: The number of rows.
        """
        alone = _row_alone(message) if rows == 1 else None
        if alone is None:
            return cls(partial(_row, _columns(message)), is_shared=True)
        return cls(lambda _: alone, is_shared=False)

    def sample(self, row: int) -> EncodedSample:
        """Restores a sample."""
        ids, spans, runs, text, rest = self.rows(row)
        form = _form_from_json(text)
        found = _tensors_along_tokens(form, ids, spans, runs)
        media: dict[str, Tensor] = {}
        tables: Mapping[str, PixelTable] = {}
        if len(rest):
            tensors, about = read_tensors(rest.copy() if self.is_shared else rest)
            facts = _rest_from_json(about)
            media = {key: tensors[f"media.{key}"] for key in facts.media}
            tables = dict(facts.pixel_tables)
            for key in facts.tokens:
                found[key] = tensors[f"tokens.{key}"]
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


def _tensors_along_tokens(form: _Form, ids: Ints, spans: Ints, runs: Ints) -> dict[str, Tensor]:
    """Returns the tensors that are not in the column `rest`."""
    found = {"input_ids": torch.from_numpy(ids.astype(np.int64))}
    if form.is_exact:
        labels = np.empty(len(ids), np.int64)
        labels.fill(IGNORE_INDEX)
        bounds = spans.tolist()
        for start, end in zip(bounds[::2], bounds[1::2], strict=True):
            labels[start:end] = ids[start:end]
        found["labels"] = torch.from_numpy(labels)
    half = len(runs) // 2
    whole = runs[:half].repeat(runs[half:]).reshape(len(form.runs), len(ids))
    for name, values in zip(form.runs, whole, strict=True):
        found[name] = torch.from_numpy(values.copy())  # a tensor that is kept keeps no other
    return found


def _row_alone(message: Bytes) -> _Row | None:
    """Returns the row of a message without copying, or `None` if it is compressed.

    This takes a fraction of the time of Arrow, which reads all columns.

    Source: https://arrow.apache.org/docs/format/Columnar.html, "Encapsulated message format".
    """
    data = message.data
    batch = _target(data, _field(data, _target(data, _PREFIX), 2))
    if _field(data, batch, 3):  # compression
        return None
    body = _PREFIX + _UINT(data, 4)[0]
    # the length and the nulls of each field, and the first byte and the size of each buffer
    fields, buffers = (_pairs(data, _target(data, _field(data, batch, place))) for place in (1, 2))
    ids, spans, runs = (
        np.frombuffer(data, kind, fields[4 * place + 2], body + buffers[8 * place + 6])
        for place, kind in enumerate(LISTS.values())
    )
    text, rest = body + buffers[28], body + buffers[-2]
    return (
        ids,
        spans,
        runs,
        data[text : text + _INT(data, body + buffers[26] + 4)[0]].tobytes(),
        message[rest : rest + _LONG(data, body + buffers[-4] + 8)[0]],
    )


_INT, _UINT, _USHORT, _LONG = (struct.Struct(kind).unpack_from for kind in ("<i", "<I", "<H", "<q"))


def _target(data: memoryview, at: int) -> int:
    """Returns the position that a reference in a flatbuffer points to."""
    return at + int(_UINT(data, at)[0])


def _field(data: memoryview, table: int, number: int) -> int:
    """Returns the position of a field of a table in a flatbuffer, or 0 if the table has none.

    Source: https://flatbuffers.dev/internals
    """
    fields = table - _INT(data, table)[0]
    place = 4 + 2 * number
    if place >= _USHORT(data, fields)[0]:
        return 0
    offset = int(_USHORT(data, fields + place)[0])
    return table + offset if offset else 0


def _pairs(data: memoryview, at: int) -> tuple[int, ...]:
    """Returns the numbers of a flatbuffer's vector of pairs."""
    return struct.unpack_from(f"<{2 * _UINT(data, at)[0]}q", data, at + 4)


def _row(columns: Sequence[tuple[Ints, Ints]], row: int) -> _Row:
    ids, spans, runs, text, rest = (
        values[edges[row] : edges[row + 1]] for edges, values in columns
    )
    return ids, spans, runs, text.tobytes(), rest


def _columns(message: Bytes) -> list[tuple[Ints, Ints]]:
    """Returns the edges of the rows and the values of each column that is read.

    Only these are decompressed, in this thread.
    """
    import pyarrow as pa

    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=_places())
    stream = pa.py_buffer(_schema_bytes() + message.tobytes())
    with pa.ipc.open_stream(stream, options=options) as reader:
        found = [column.buffers() for column in reader.read_next_batch().columns]
    edges = (np.int32, np.int32, np.int32, np.int32, np.int64)
    values = (*LISTS.values(), np.uint8, np.uint8)
    return [
        (_numbers(buffers[1], edge), _numbers(buffers[-1], kind))
        for buffers, edge, kind in zip(found, edges, values, strict=True)
    ]


@cache
def _places() -> list[int]:
    return [arrow_schema().get_field_index(name) for name in (*LISTS, FORM, REST)]


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
