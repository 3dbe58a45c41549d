"""The dataset that reads encoded samples from shards.

Shapes: N rows, S shards.
"""

from __future__ import annotations

import operator
import os
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from vlmcollate.collator import BaseCollator
from vlmcollate.data.fingerprint import fingerprint_of
from vlmcollate.data.groups import Group
from vlmcollate.data.manifest import Manifest, ShardTable, check_same, shard_name
from vlmcollate.data.parquet_rows import import_parquet
from vlmcollate.data.shards import Shard, read_lengths
from vlmcollate.errors import ConfigError
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import an_instance_of

_OPEN_SHARDS = 64
"""The maximum number of files that a process keeps open."""
_CACHED_GROUPS = 2048
"""The maximum number of groups of small rows that a process keeps, of about 20 kB each."""


@attrs.frozen(eq=False)
class PreparedDataset(Dataset[EncodedSample]):
    """A map-style dataset of the samples that `prepare_dataset` wrote.

    Pass `collator.stack` to the DataLoader as its `collate_fn`, which copies what it stacks. The
    large tensors of a sample are memory of its mapped shard, which another sample of the same row
    shares: clone them before you write to them.

    Args:
        folder: The folder of the samples.
        collator: The collator that stacks the samples. It must encode like the one that prepared
            them. Options that only select samples may differ: `max_length` and `on_overlong`, the
            location and the limits of media, `require_labels`, `on_template_omission` and
            `special_tokens_in_text`.

    Attributes:
        manifest: The manifest in the folder.
        lengths: (N,) int32, the tokens of each row, for `LengthGroupedSampler` and `plan_packs`.

    Raises:
        ConfigError: The folder holds no complete dataset, or one that was prepared with another
            tokenizer, template, processor, version or option; the message names the difference.
    """

    folder: Path = attrs.field(converter=Path)
    collator: BaseCollator = attrs.field(validator=an_instance_of(BaseCollator))
    manifest: Manifest = attrs.field(init=False)
    lengths: npt.NDArray[np.int32] = attrs.field(init=False)
    _starts: npt.NDArray[np.int64] = attrs.field(init=False)
    _reader: _Reader = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Reads the manifest and the index of each shard."""
        import_parquet()
        manifest = Manifest.load(self.folder)
        check_same(
            manifest.fingerprint,
            fingerprint_of(self.collator),
            f"'{self.folder}' was prepared by a collator that encodes differently",
            "Prepare it again, or use that collator",
        )
        starts = np.concatenate([[0], np.cumsum(manifest.shards.rows)])
        for name, value in (
            ("manifest", manifest),
            ("lengths", self._read_lengths(manifest, starts)),
            ("_starts", starts),
            ("_reader", _Reader(self.folder, manifest.shards)),
        ):
            object.__setattr__(self, name, value)

    def _read_lengths(
        self, manifest: Manifest, starts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int32]:
        """Opens each shard, and refuses another one than the manifest names."""
        lengths = np.empty(starts[-1], np.int32)
        folder, edges = str(self.folder), starts.tolist()
        for number, (start, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            file, seal = os.path.join(folder, shard_name(number)), manifest.shards.seal(number)
            found = read_lengths(file, seal)
            if found is None or len(found) != end - start:
                raise _other_shard_error(Path(file), manifest.run, seal)
            lengths[start:end] = found
        return lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> EncodedSample:
        """Reads one row.

        Raises:
            IndexError: There is no such row.
            TypeError: The index is no integer.
            ConfigError: The shard of the row is missing or damaged.
        """
        index, total = operator.index(index), len(self.lengths)
        if not -total <= index < total:
            raise IndexError(f"row {index} of {total}")
        index %= total
        starts = self._starts.data  # whose items are read faster than those of an array
        shard = bisect_right(starts, index) - 1
        return self._reader.read(shard, index - starts[shard])


def _other_shard_error(file: Path, run: str, seal: str) -> ConfigError:
    """Returns the error for a shard that is not the one in the manifest."""
    shard = Shard.of(file)
    try:
        shard.check_origin(run)
    except ConfigError as error:
        return error
    return ConfigError(
        f"'{file}' is not the shard that the manifest names: found the seal "
        f"{shard.facts.seal[:12]}... and {len(shard.lengths)} rows, expected the seal "
        f"{seal[:12]}...; put that shard back, or remove this one and prepare the dataset again"
    )


class _Reader:
    """Reads rows, and keeps some shards open and some groups of small rows.

    A process that is spawned gets a reader of its own; one that is forked keeps what is here.

    Args:
        folder: The folder of the shards.
        shards: The shards.
    """

    def __init__(self, folder: Path, shards: ShardTable) -> None:
        def open_shard(number: int) -> Shard:
            shard = Shard.of(folder / shard_name(number))
            shard.check_seal(shards.seal(number))
            return shard

        def read_group(number: int, group: int) -> Group:
            return self._shard(number).read_group(group)

        self._arguments = folder, shards
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(open_shard)
        self._group = lru_cache(maxsize=_CACHED_GROUPS)(read_group)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def read(self, number: int, row: int) -> EncodedSample:
        """Reads a row of a shard."""
        shard = self._shard(number)
        group = shard.find_group(row)
        # a row that is alone may be large, and its tensors share the memory of its group
        alone = shard.read_alone(group)
        if alone is not None:
            return alone
        return self._group(number, group).sample(row - int(shard.starts[group]))
