"""Encoded samples as rows of Parquet, and back without loss.

Shapes: L a row's tokens, R runs of equal values, S spans.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoded import sample_bytes, sample_from_bytes
from vlmcollate.data.manifest import Manifest, check_same, fingerprint_of
from vlmcollate.data.sources import parquet
from vlmcollate.errors import ConfigError
from vlmcollate.options import an_instance_of
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

ROWS_PER_GROUP = 32
_OPEN_GROUPS = 8


def row_of(sample: EncodedSample, source_rows: Sequence[int]) -> dict[str, Any]:
    """An encoded sample as a row.

    Args:
        sample: What `encode` or `pack` gave.
        source_rows: The rows of the source that it holds.

    Returns:
        `input_ids` (L,) and `label_spans` (2 S,) int32, each span's start and end; `length`;
        `media_counts` and the media's `grids`; and under `rest` what else there is.
    """
    ids, labels = sample.input_ids.numpy(), sample.labels.numpy()
    trained = labels != IGNORE_INDEX
    tokens = {key: value for key, value in sample.tokens.items() if key != "input_ids"}
    exact = bool((labels[trained] == ids[trained]).all())
    if exact:
        del tokens["labels"]
    columns = {**tokens, "message_ids": sample.message_ids, "media_ids": sample.media_ids}
    runs = {f"runs.{k}": _runs(v) for k, v in columns.items() if _has_runs(v)}
    others = {k: v for k, v in columns.items() if f"runs.{k}" not in runs}
    nothing = torch.empty(0, dtype=torch.int64)
    rest = attrs.evolve(
        sample,
        tokens={**others, **runs},
        message_ids=nothing,
        media_ids=nothing,
    )
    return {
        "source_rows": [int(row) for row in source_rows],
        "input_ids": ids.astype(np.int32),
        "label_spans": _spans(trained) if exact else np.empty(0, np.int32),
        "length": len(sample),
        "media_counts": list(sample.media_counts.items()),
        "grids": [
            (key, value.reshape(-1).tolist())
            for key, value in sample.media.items()
            if key.endswith(("_grid_thw", "_grid_hws", "grid_thws"))
        ],
        "token_keys": list(sample.tokens),
        "rest": sample_bytes(rest),
    }


def sample_of(row: Mapping[str, Any]) -> EncodedSample:
    """The sample that `row_of` was given."""
    rest = sample_from_bytes(row["rest"])
    ids = torch.from_numpy(np.asarray(row["input_ids"], np.int64))
    found: dict[str, Tensor] = {"input_ids": ids}
    for key, value in rest.tokens.items():
        name = key.removeprefix("runs.")
        found[name] = _from_runs(value) if name != key else value
    message_ids, media_ids = found.pop("message_ids"), found.pop("media_ids")
    if "labels" in row["token_keys"] and "labels" not in found:
        found["labels"] = torch.full_like(ids, IGNORE_INDEX)
        for start, end in np.asarray(row["label_spans"]).reshape(-1, 2).tolist():
            found["labels"][start:end] = ids[start:end]
    return attrs.evolve(
        rest,
        tokens={key: found[key] for key in row["token_keys"]},
        message_ids=message_ids,
        media_ids=media_ids,
    )


@attrs.frozen(eq=False)
class PreparedDataset(Dataset[EncodedSample]):
    """The samples that `prepare_dataset` wrote, map-style.

    Hand `collator.stack` to the DataLoader as its `collate_fn`.

    Args:
        folder: Where they are.
        collator: The collator that stacks them, which has to encode as the one that prepared them.

    Attributes:
        manifest: What was prepared.
        lengths: (N,) int64, the tokens of each row, for `LengthGroupedSampler` and `plan_packs`.

    Raises:
        ConfigError: Nothing whole is there, or it was prepared with another tokenizer, template,
            processor, version or option; the message says which.
    """

    folder: Path = attrs.field(converter=Path)
    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))
    manifest: Manifest = attrs.field(init=False)
    lengths: npt.NDArray[np.int64] = attrs.field(init=False)
    _starts: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Reads the manifest and the lengths."""
        manifest = Manifest.load(self.folder)
        expected = _with_limits_of(manifest, self.collator)
        check_same(
            manifest.fingerprint,
            fingerprint_of(expected),
            f"'{self.folder}' was prepared by a collator that encodes otherwise",
            "Prepare it again, or use that collator",
        )
        starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)]).tolist()
        columns = [
            parquet().read_table(_existing(self.folder / shard.file), columns=["length"])
            for shard in manifest.shards
        ]
        lengths = [np.asarray(column["length"], np.int64) for column in columns]
        for name, value in (
            ("manifest", manifest),
            ("lengths", np.concatenate(lengths)),
            ("_starts", starts),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> EncodedSample:
        """Reads one row.

        Raises:
            IndexError: There is no such row.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        shard = bisect_right(self._starts, index) - 1
        row = index - self._starts[shard]
        file = self.folder / self.manifest.shards[shard].file
        group = _group(os.fspath(file), _existing(file).stat().st_mtime_ns, row // ROWS_PER_GROUP)
        return sample_of(group[row % ROWS_PER_GROUP])


@lru_cache(maxsize=_OPEN_GROUPS)
def _group(file: str, changed: int, group: int) -> list[dict[str, Any]]:
    """Some rows that lie together, since neighbours are often asked for together."""
    del changed  # part of the key
    table = parquet().ParquetFile(file).read_row_group(group)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise ConfigError(f"'{file}' is missing; prepare the dataset again, which goes on there")
    return file


def _with_limits_of(manifest: Manifest, collator: BaseCollator) -> BaseCollator:
    """The collator with the length that `prepare_dataset` was told, which is its own option."""
    if manifest.options.get("max_length") is None:
        return collator
    return attrs.evolve(collator, max_length=manifest.options["max_length"])


def _spans(trained: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """(2 S,) where each run of True starts and ends."""
    edges = np.flatnonzero(np.diff(trained, prepend=False, append=False))
    return edges.astype(np.int32)


def _has_runs(value: Tensor) -> bool:
    """Whether a tensor is shorter as runs of equal values."""
    if value.dtype != torch.int64 or value.ndim != 1:
        return False
    return 2 * int((value[1:] != value[:-1]).sum()) + 2 <= len(value)


def _runs(value: Tensor) -> Tensor:
    """(2, R) int64: the values, and how often each stands there in a row."""
    array = value.numpy()
    starts = np.flatnonzero(np.concatenate([[True], array[1:] != array[:-1]])[: len(array)])
    counts = np.diff(starts, append=len(array))
    return torch.from_numpy(np.stack([array[starts], counts]).astype(np.int64))


def _from_runs(runs: Tensor) -> Tensor:
    return torch.repeat_interleave(runs[0], runs[1])
