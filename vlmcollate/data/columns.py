"""Encoded samples as columns of Arrow, a group of samples at a time.

Shapes: S samples, L a sample's tokens, R its runs of equal values, N all tokens of a group.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from torch import Tensor

from vlmcollate.data.runs import Ints, Runs, edges_of, is_start, joined
from vlmcollate.data.tensors import TensorBytes
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

_GRIDS = ("_grid_thw", "_grid_hws", "grid_thws")
RAW_BYTES = 16 << 10
"""The minimum bytes of media of a sample that is stored raw; such a row is alone in its group."""
FORM, REST = "form", "rest"
LISTS = {"input_ids": np.int32, "label_spans": np.int32, "runs": np.int64}
"""The columns of lists that are read, and the types of their values."""


@cache
def arrow_schema() -> Any:
    """Returns the Arrow schema of a shard."""
    import pyarrow as pa

    return pa.schema(
        {
            **{name: pa.list_(pa.from_numpy_dtype(kind)) for name, kind in LISTS.items()},
            FORM: pa.string(),
            "source_rows": pa.list_(pa.int64()),
            "length": pa.int32(),
            "media_counts": pa.map_(pa.string(), pa.int32()),
            "grids": pa.map_(pa.string(), pa.list_(pa.int64())),
            REST: pa.large_binary(),
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
        span; `runs`, the values of the other tensors along the tokens, one tensor after the other,
        and then the counts of the values; `form`, the names of the tensors; `length`;
        `media_counts` and the media's `grids`; and everything else under `rest`. Samples that are
        raw have no `runs` and no `form`.
    """
    import pyarrow as pa

    edges = edges_of([len(sample) for sample in samples])
    ids = joined([sample.input_ids for sample in samples])
    spans, span_edges, exact = _label_spans(samples, ids, edges)
    raw = [is_raw(sample) for sample in samples]
    others = [
        {} if r else _beside_ids(sample, has_labels=not e)
        for sample, r, e in zip(samples, raw, exact, strict=True)
    ]
    runs = Runs.of(others, np.diff(edges))
    forms, rests = zip(*map(_form_and_rest, samples, runs.names, exact, raw), strict=True)
    counts = [list(sample.media_counts.items()) for sample in samples]
    schema = arrow_schema()
    arrays = {
        "source_rows": _lists(_integers(source_rows), edges_of(list(map(len, source_rows)))),
        "input_ids": _lists(ids.astype(np.int32), edges),
        "label_spans": _lists(spans, span_edges),
        "runs": _lists(runs.data, runs.edges),
        "length": _array(np.diff(edges).astype(np.int32)),
        "media_counts": _map(counts, lambda found: _array(np.asarray(found, np.int32))),
        "grids": _map(
            list(map(_grids, samples)),
            lambda found: _lists(_integers(found), edges_of(list(map(len, found)))),
        ),
        FORM: _text(forms),
        REST: _tensors(rests),
    }
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def is_raw(sample: EncodedSample) -> bool:
    """Whether `rest` holds all tensors of a sample and the facts about them.

    This is the fastest to read, and takes at most a sixteenth more space.
    """
    media = sum(tensor.nbytes for tensor in sample.media.values())
    if media < RAW_BYTES:
        return False
    return media >= 16 * sum(tensor.nbytes for tensor in _along_tokens(sample).values())


def _form_and_rest(
    sample: EncodedSample,
    runs: tuple[str, ...],
    is_exact: bool,  # noqa: FBT001  # map passes it
    raw: bool,  # noqa: FBT001
) -> tuple[bytes, TensorBytes | None]:
    """Returns the facts about a row's tensors, and the tensors that no other column holds."""
    known = set() if raw else {"input_ids", *runs, *(("labels",) if is_exact else ())}
    tokens = {key: value for key, value in _along_tokens(sample).items() if key not in known}
    tensors = {f"tokens.{key}": value for key, value in tokens.items()}
    tensors |= {f"media.{key}": value for key, value in sample.media.items()}
    facts = _form(sample, runs, is_exact=is_exact)
    if raw:
        return b"", TensorBytes.of(tensors, facts)
    return facts.encode(), TensorBytes.of(tensors, "") if tensors else None


def _form(sample: EncodedSample, runs: tuple[str, ...], *, is_exact: bool) -> str:
    """Returns the facts about a sample's tensors as JSON."""
    keys, counts = (tuple(sample.tokens), tuple(sample.media)), tuple(sample.media_counts.items())
    facts, text = _common_form(*keys, runs, counts, sample.label_strategy, is_exact=is_exact)
    if not sample.documents and not sample.pixel_tables:
        return text
    documents = [attrs.asdict(document) for document in sample.documents]
    tables = {key: table.to_dict() for key, table in sample.pixel_tables.items()}
    return json.dumps({**facts, "documents": documents, "pixel_tables": tables})


@lru_cache(maxsize=256)
def _common_form(
    tokens: tuple[str, ...],
    media: tuple[str, ...],
    runs: tuple[str, ...],
    media_counts: tuple[tuple[str, int], ...],
    label_strategy: str,
    *,
    is_exact: bool,
) -> tuple[dict[str, Any], str]:
    """Returns the facts about a sample that is no pack and has no table, and them as JSON."""
    facts = {
        "tokens": tokens,
        "media": media,
        "runs": runs,
        "is_exact": is_exact,
        "media_counts": dict(media_counts),
        "label_strategy": label_strategy,
        "documents": [],
        "pixel_tables": {},
    }
    return facts, json.dumps(facts)


def _along_tokens(sample: EncodedSample) -> dict[str, Tensor]:
    return {
        **sample.tokens,
        "message_ids": sample.message_ids,
        "media_ids": sample.media_ids,
    }


def _beside_ids(sample: EncodedSample, *, has_labels: bool) -> dict[str, Tensor]:
    """Returns the tensors along the tokens without the ids and labels that follow from them."""
    found = _along_tokens(sample)
    del found["input_ids"]
    if not has_labels:
        found.pop("labels", None)
    return found


def _label_spans(
    samples: Sequence[EncodedSample], ids: Ints, edges: Ints
) -> tuple[npt.NDArray[np.int32], Ints, list[bool]]:
    """Returns the spans of trained tokens, their edges by row, and whether they are the labels."""
    labels = joined([sample.labels for sample in samples])
    trained = labels != IGNORE_INDEX
    wrong = edges_of(trained & (labels != ids))[edges]
    exact = np.diff(wrong) == 0
    trained &= np.repeat(exact, np.diff(edges))
    starts, ends = trained.copy(), trained.copy()
    starts[1:] &= ~trained[:-1] | is_start(edges)[1:]
    ends[:-1] &= ~trained[1:] | is_start(edges)[1:]
    places = np.stack([np.flatnonzero(starts), np.flatnonzero(ends) + 1], axis=1)
    bounds = np.searchsorted(places[:, 0], edges)
    places -= np.repeat(edges[:-1], np.diff(bounds))[:, None]
    return places.reshape(-1).astype(np.int32), 2 * bounds, exact.tolist()


def _grids(sample: EncodedSample) -> list[tuple[str, list[int]]]:
    return [
        (key, value.reshape(-1).tolist())
        for key, value in sample.media.items()
        if key.endswith(_GRIDS)
    ]


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

    edges = _array(edges_of(list(map(len, rows))).astype(np.int32))
    keys = _text([key.encode() for row in rows for key, _ in row])
    return pa.MapArray.from_arrays(edges, keys, values([value for row in rows for _, value in row]))


def _text(values: Sequence[bytes]) -> Any:
    import pyarrow as pa

    edges = edges_of(list(map(len, values))).astype(np.int32)
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _tensors(values: Sequence[TensorBytes | None]) -> Any:
    import pyarrow as pa

    edges = edges_of([0 if value is None else value.size for value in values])
    data = np.empty(edges[-1], np.uint8)
    for value, start, end in zip(values, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if value is not None:
            value.write(data[start:end])
    buffers = [None, pa.py_buffer(edges), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_binary(), len(values), buffers)
