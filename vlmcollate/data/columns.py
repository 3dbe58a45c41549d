"""Encoded samples as columns of Arrow, a group of samples at a time.

Shapes: S samples, L a sample's tokens, R its runs of equal values, N all tokens of a group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmcollate.data.encoded import (
    document_from_facts,
    sample_from_tensor_bytes,
    sample_to_tensor_bytes,
)
from vlmcollate.pixels import PixelTable
from vlmcollate.sample import IGNORE_INDEX, Document, EncodedSample

Ints = npt.NDArray[np.int64]
_GRIDS = ("_grid_thw", "_grid_hws", "grid_thws")
_SMALL = 64
"""At most this many tokens are always stored as runs, so that short rows need nothing else."""
_FORM, _REST = "form", "rest"
_LISTS = {
    "input_ids": np.int32,
    "label_spans": np.int32,
    "run_sizes": np.int32,
    "runs": np.int64,
}
"""The columns of lists that are read, and the types of their values."""


@cache
def arrow_schema() -> Any:
    """Returns the Arrow schema of a shard."""
    import pyarrow as pa

    return pa.schema(
        {
            "source_rows": pa.list_(pa.int64()),
            **{name: pa.list_(pa.from_numpy_dtype(kind)) for name, kind in _LISTS.items()},
            "length": pa.int32(),
            "media_counts": pa.map_(pa.string(), pa.int32()),
            "grids": pa.map_(pa.string(), pa.list_(pa.int64())),
            _FORM: pa.string(),
            _REST: pa.large_binary(),
        }
    )


def batch_from_samples(
    samples: Sequence[EncodedSample], source_rows: Sequence[Sequence[int]]
) -> Any:
    """Converts samples to a record batch, without loss.

    Args:
        samples: S samples from `encode` or `pack`.
        source_rows: The numbers of each sample's rows in the source.

    Returns:
        A record batch of S rows: `input_ids` (L,) and `label_spans`, the start and end of each
        span; `length`; `media_counts` and the media's `grids`; `runs`, the values and the counts of
        the other tensors along the tokens, with `run_sizes`, the number of runs of each; `form`,
        the names of the tensors; and everything else under `rest`.
    """
    import pyarrow as pa

    edges = _edges([len(sample) for sample in samples])
    ids = _joined([sample.input_ids.numpy() for sample in samples])
    spans, span_edges, exact = _label_spans(samples, ids, edges)
    runs = _runs(samples, exact, edges)
    names = [list(found) for found in runs]
    parts = [part for found in runs for pair in found.values() for part in pair]
    sizes = [len(values) for found in runs for values, _ in found.values()]
    rests = [_rest(sample, found, e) for sample, found, e in zip(samples, runs, exact, strict=True)]
    counts = [list(sample.media_counts.items()) for sample in samples]
    forms = [_form(*facts) for facts in zip(samples, names, exact, strict=True)]
    per_row = [2 * sum(len(values) for values, _ in found.values()) for found in runs]
    schema = arrow_schema()
    arrays = {
        "source_rows": _lists(_integers(source_rows), _edges(list(map(len, source_rows)))),
        "input_ids": _lists(ids.astype(np.int32), edges),
        "label_spans": _lists(spans, span_edges),
        "run_sizes": _lists(np.asarray(sizes, np.int32), _edges([len(found) for found in runs])),
        "runs": _lists(_joined(parts), _edges(per_row)),
        "length": _array(np.diff(edges).astype(np.int32)),
        "media_counts": _map(counts, lambda found: _array(np.asarray(found, np.int32))),
        "grids": _map(
            list(map(_grids, samples)),
            lambda found: _lists(_integers(found), _edges(list(map(len, found)))),
        ),
        _FORM: _bytes(pa.string(), [form.encode() for form in forms]),
        _REST: _bytes(pa.large_binary(), rests),
    }
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


@attrs.frozen(eq=False)
class Group:
    """A group of rows that was read.

    Attributes:
        lists: The edges of the rows and the values of each column of lists.
        forms: The edges and the bytes of the column `form`.
        rests: The edges and the bytes of the column `rest`.
        is_shared: Whether several rows share the bytes, so that their tensors are copies.
    """

    lists: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    forms: tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]
    rests: tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]
    is_shared: bool

    @classmethod
    def of(cls, message: npt.NDArray[np.uint8], rows: int) -> Group:
        """Reads a group from its message.

        Args:
            message: The message; tensors of a group of one row share its memory.
            rows: The number of rows.
        """
        batch = _batch_alone(message) if rows == 1 else _batch_of_several(message)
        columns = {name: column.buffers() for name, column in zip(_READ, batch, strict=True)}
        (_, form_edges, forms), (_, rest_edges, rests) = columns[_FORM], columns[_REST]
        return cls(
            lists={
                name: (_numbers(columns[name][1], np.int32), _numbers(columns[name][3], kind))
                for name, kind in _LISTS.items()
            },
            forms=(_numbers(form_edges, np.int32), _numbers(forms, np.uint8)),
            rests=(
                _numbers(rest_edges, np.int64),
                _within(message, rests) if rows == 1 else _numbers(rests, np.uint8),
            ),
            is_shared=rows > 1,
        )

    def sample(self, row: int) -> EncodedSample:
        """Restores a sample."""
        start, end = self.forms[0][row : row + 2].tolist()
        form = _form_from_json(self.forms[1][start:end].tobytes())
        ids = torch.from_numpy(self._list("input_ids", row).astype(np.int64))
        found: dict[str, Tensor] = {"input_ids": ids}
        runs, at = self._list("runs", row), 0
        for name, size in zip(form.runs, self._list("run_sizes", row).tolist(), strict=True):
            values, counts = runs[at : at + size], runs[at + size : at + 2 * size]
            found[name], at = torch.from_numpy(np.repeat(values, counts)), at + 2 * size
        if form.is_exact:
            found["labels"] = torch.full_like(ids, IGNORE_INDEX)
            for start, end in self._list("label_spans", row).reshape(-1, 2).tolist():
                found["labels"][start:end] = ids[start:end]
        start, end = self.rests[0][row : row + 2].tolist()
        media: Mapping[str, Tensor] = {}
        tables: Mapping[str, PixelTable] = {}
        if end > start:
            data = self.rests[1][start:end]
            rest = sample_from_tensor_bytes(data.tobytes() if self.is_shared else data)
            media, tables, found = rest.media, rest.pixel_tables, {**found, **rest.tokens}
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

    def _list(self, name: str, row: int) -> npt.NDArray[Any]:
        edges, values = self.lists[name]
        found: npt.NDArray[Any] = values[edges[row] : edges[row + 1]]
        return found


_READ = (*_LISTS, _FORM, _REST)
"""The columns that are read, in the order of the schema."""


def _batch_alone(message: npt.NDArray[np.uint8]) -> list[Any]:
    """Returns the columns of a message, without copying."""
    import pyarrow as pa

    batch = pa.ipc.read_record_batch(pa.py_buffer(message), arrow_schema())
    return [batch.column(place) for place in _places()]


def _batch_of_several(message: npt.NDArray[np.uint8]) -> list[Any]:
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


@attrs.frozen(eq=False)
class _Form:
    """The names of a sample's tensors, and what else is not a tensor."""

    tokens: tuple[str, ...]
    runs: tuple[str, ...]
    is_exact: bool
    media_counts: Mapping[str, int]
    label_strategy: str
    documents: tuple[Document, ...]


def _form(sample: EncodedSample, runs: Sequence[str], is_exact: bool) -> str:  # noqa: FBT001
    return json.dumps(
        {
            "tokens": list(sample.tokens),
            "runs": list(runs),
            "is_exact": is_exact,
            "media_counts": dict(sample.media_counts),
            "label_strategy": sample.label_strategy,
            "documents": [attrs.asdict(document) for document in sample.documents],
        }
    )


@lru_cache(maxsize=256)
def _form_from_json(text: bytes) -> _Form:
    facts = json.loads(text)
    documents = tuple(document_from_facts(**document) for document in facts.pop("documents"))
    return _Form(**facts, documents=documents)


def _rest(sample: EncodedSample, runs: Mapping[str, Any], is_exact: bool) -> bytes:  # noqa: FBT001
    """Returns the tensors that no other column holds, or no bytes if there are none."""
    known = {"input_ids", *runs, *(("labels",) if is_exact else ())}
    tokens = {key: value for key, value in _along_tokens(sample).items() if key not in known}
    if not tokens and not sample.media:
        return b""
    nothing = torch.empty(0, dtype=torch.int64)
    rest = attrs.evolve(sample, tokens=tokens, message_ids=nothing, media_ids=nothing, documents=())
    return sample_to_tensor_bytes(rest)


def _along_tokens(sample: EncodedSample) -> dict[str, Tensor]:
    return {
        **sample.tokens,
        "message_ids": sample.message_ids,
        "media_ids": sample.media_ids,
    }


def _label_spans(
    samples: Sequence[EncodedSample], ids: Ints, edges: Ints
) -> tuple[npt.NDArray[np.int32], Ints, list[bool]]:
    """Returns the spans of trained tokens, their edges by row, and whether they are the labels."""
    labels = _joined([sample.labels.numpy() for sample in samples])
    trained = labels != IGNORE_INDEX
    wrong = _edges(trained & (labels != ids))[edges]
    exact = np.diff(wrong) == 0
    trained &= np.repeat(exact, np.diff(edges))
    starts, ends = trained.copy(), trained.copy()
    starts[1:] &= ~trained[:-1] | _is_start(edges)[1:]
    ends[:-1] &= ~trained[1:] | _is_start(edges)[1:]
    places = np.stack([np.flatnonzero(starts), np.flatnonzero(ends) + 1], axis=1)
    bounds = np.searchsorted(places[:, 0], edges)
    places -= np.repeat(edges[:-1], np.diff(bounds))[:, None]
    return places.reshape(-1).astype(np.int32), 2 * bounds, exact.tolist()


def _runs(
    samples: Sequence[EncodedSample], exact: Sequence[bool], edges: Ints
) -> list[dict[str, tuple[Ints, Ints]]]:
    """Returns the values and the counts of each tensor that takes less space as runs, by sample."""
    tensors = [_along_tokens(sample) for sample in samples]
    found: list[dict[str, tuple[Ints, Ints]]] = [{} for _ in samples]
    lengths = np.diff(edges).tolist()
    for key in dict.fromkeys(key for some in tensors for key in some if key != "input_ids"):
        rows = [
            row
            for row, some in enumerate(tensors)
            if key in some
            and some[key].dtype == torch.int64
            and some[key].shape == (lengths[row],)
            and not (key == "labels" and exact[row])
        ]
        if rows:
            runs = _runs_by_row([tensors[row][key].numpy() for row in rows])
            for row, (values, counts) in zip(rows, runs, strict=True):
                if 2 * len(values) + 2 <= max(lengths[row], _SMALL):
                    found[row][key] = values, counts
    return found


def _runs_by_row(arrays: Sequence[Ints]) -> list[tuple[Ints, Ints]]:
    """Returns the values and the lengths of the runs of each array."""
    data, edges = _joined(arrays), _edges([len(array) for array in arrays])
    begins = _is_start(edges)
    begins[1:] |= data[1:] != data[:-1]
    starts = np.flatnonzero(begins)
    values, counts = data[starts], np.diff(starts, append=len(data))
    bounds = np.searchsorted(starts, edges).tolist()
    return [
        (values[start:end], counts[start:end])
        for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _is_start(edges: Ints) -> npt.NDArray[np.bool_]:
    """Returns (N,) whether a row starts at each place."""
    found = np.zeros(edges[-1] + 1, np.bool_)
    found[edges[:-1]] = True
    return found[:-1]


def _grids(sample: EncodedSample) -> list[tuple[str, list[int]]]:
    return [
        (key, value.reshape(-1).tolist())
        for key, value in sample.media.items()
        if key.endswith(_GRIDS)
    ]


def _edges(counts: Any) -> Ints:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _joined(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def _integers(rows: Sequence[Sequence[int]]) -> Ints:
    return np.asarray([number for row in rows for number in row], np.int64)


def _array(values: npt.NDArray[Any]) -> Any:
    """Returns an Arrow array; `pyarrow.array` would import pandas first, which takes a second."""
    import pyarrow as pa

    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _lists(values: npt.NDArray[Any], edges: Ints) -> Any:
    import pyarrow as pa

    return pa.ListArray.from_arrays(_array(edges.astype(np.int32)), _array(values))


def _map(rows: Sequence[Sequence[tuple[str, Any]]], values: Callable[[list[Any]], Any]) -> Any:
    import pyarrow as pa

    edges = _array(_edges(list(map(len, rows))).astype(np.int32))
    keys = _bytes(pa.string(), [key.encode() for row in rows for key, _ in row])
    return pa.MapArray.from_arrays(edges, keys, values([value for row in rows for _, value in row]))


def _bytes(kind: Any, values: Sequence[bytes]) -> Any:
    import pyarrow as pa

    edges = _edges(list(map(len, values)))
    if kind == pa.string():
        edges = edges.astype(np.int32)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _numbers(buffer: Any, kind: Any) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, kind) if buffer is not None else np.empty(0, kind)


def _within(message: npt.NDArray[np.uint8], buffer: Any) -> npt.NDArray[np.uint8]:
    """Returns a buffer as a part of the message, which may be written to, or a copy of it."""
    if buffer is None:
        return np.empty(0, np.uint8)
    start = buffer.address - message.ctypes.data
    if 0 <= start <= len(message) - buffer.size:
        return message[start : start + buffer.size]
    return np.frombuffer(buffer, np.uint8).copy()
