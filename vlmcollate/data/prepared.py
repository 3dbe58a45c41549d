"""Encoded samples as rows of Parquet, and the dataset that reads them.

Shapes: L a row's tokens, R runs of equal values, S spans.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoded import sample_from_tensor_bytes, sample_to_tensor_bytes
from vlmcollate.data.manifest import Manifest, ShardFacts, check_same, fingerprint_of
from vlmcollate.data.shards import Shard
from vlmcollate.errors import ConfigError
from vlmcollate.sample import IGNORE_INDEX, EncodedSample
from vlmcollate.validators import an_instance_of


def row_from_sample(sample: EncodedSample, source_rows: Sequence[int]) -> dict[str, Any]:
    """Converts an encoded sample to a row, without loss.

    Args:
        sample: A sample from `encode` or `pack`.
        source_rows: The numbers of its rows in the source.

    Returns:
        `input_ids` (L,) and `label_spans` (2 S,) int32, the start and end of each span; `length`;
        `media_counts` and the media's `grids`; and everything else under `rest`.
    """
    ids, labels = sample.input_ids.numpy(), sample.labels.numpy()
    trained = labels != IGNORE_INDEX
    tokens = {key: value for key, value in sample.tokens.items() if key != "input_ids"}
    exact = bool((labels[trained] == ids[trained]).all())
    if exact:
        del tokens["labels"]
    columns = {**tokens, "message_ids": sample.message_ids, "media_ids": sample.media_ids}
    runs = {f"runs.{k}": _runs(v) for k, v in columns.items() if _is_shorter_as_runs(v)}
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
        "rest": sample_to_tensor_bytes(rest),
    }


def sample_from_row(row: Mapping[str, Any]) -> EncodedSample:
    """Restores a sample from `row_from_sample`."""
    rest = sample_from_tensor_bytes(row["rest"])
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
    """A map-style dataset of the samples that `prepare_dataset` wrote.

    Pass `collator.stack` to the DataLoader as its `collate_fn`.

    Args:
        folder: The folder of the samples.
        collator: The collator that stacks the samples. It must encode like the one that prepared
            them. Options that only select samples may differ: `max_length` and `on_overlong`, the
            location and the limits of media, `require_labels`, `on_template_omission` and
            `special_tokens_in_text`.

    Attributes:
        manifest: The manifest in the folder.
        lengths: (N,) int64, the tokens of each row, for `LengthGroupedSampler` and `plan_packs`.

    Raises:
        ConfigError: The folder holds no complete dataset, or one that was prepared with another
            tokenizer, template, processor, version or option; the message names the difference.
    """

    folder: Path = attrs.field(converter=Path)
    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))
    manifest: Manifest = attrs.field(init=False)
    lengths: npt.NDArray[np.int64] = attrs.field(init=False)
    _shards: list[Shard] = attrs.field(init=False)
    _starts: list[int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Reads the manifest and the index of each shard."""
        manifest = Manifest.load(self.folder)
        check_same(
            manifest.fingerprint,
            fingerprint_of(self.collator),
            f"'{self.folder}' was prepared by a collator that encodes differently",
            "Prepare it again, or use that collator",
        )
        shards = [self._open(manifest, facts) for facts in manifest.shards]
        for name, value in (
            ("manifest", manifest),
            ("lengths", np.concatenate([shard.lengths for shard in shards])),
            ("_shards", shards),
            ("_starts", np.cumsum([0, *(len(shard.lengths) for shard in shards)]).tolist()),
        ):
            object.__setattr__(self, name, value)

    def _open(self, manifest: Manifest, facts: ShardFacts) -> Shard:
        """Opens a shard, and refuses another one than the manifest names."""
        shard = Shard.of(self.folder / facts.file)
        shard.check_origin(manifest.run)
        if shard.facts != facts:
            raise ConfigError(
                f"'{shard.file}' is not the shard that the manifest names: found the seal "
                f"{shard.facts.seal[:12]}..., expected {facts.seal[:12]}...; put that shard "
                "back, or remove this one and prepare the dataset again"
            )
        return shard

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> EncodedSample:
        """Reads one row.

        Raises:
            IndexError: There is no such row.
            ConfigError: The shard of the row is missing or damaged.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        shard = bisect_right(self._starts, index) - 1
        return sample_from_row(self._shards[shard].read_row(index - self._starts[shard]))


def _spans(trained: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Returns (2 S,) the start and the end of each run of True."""
    edges = np.flatnonzero(np.diff(trained, prepend=False, append=False))
    return edges.astype(np.int32)


def _is_shorter_as_runs(value: Tensor) -> bool:
    """Whether runs of equal values take less space than the tensor."""
    if value.dtype != torch.int64 or value.ndim != 1:
        return False
    return 2 * int((value[1:] != value[:-1]).sum()) + 2 <= len(value)


def _runs(value: Tensor) -> Tensor:
    """Returns (2, R) int64: the values, and the length of the run of each."""
    array = value.numpy()
    starts = np.flatnonzero(np.concatenate([[True], array[1:] != array[:-1]])[: len(array)])
    counts = np.diff(starts, append=len(array))
    return torch.from_numpy(np.stack([array[starts], counts]).astype(np.int64))


def _from_runs(runs: Tensor) -> Tensor:
    values, counts = runs.numpy()  # NumPy does not wait for torch's threads
    return torch.from_numpy(np.repeat(values, counts))
