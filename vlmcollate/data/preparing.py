"""Encoding a whole dataset ahead of time, into shards of Parquet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoder import Encoder
from vlmcollate.data.locking import claimed
from vlmcollate.data.manifest import (
    Manifest,
    ShardFacts,
    fingerprint_of,
    keeping_of,
    run_of,
    shard_name,
)
from vlmcollate.data.processes import write_shards
from vlmcollate.data.shards import Shard
from vlmcollate.data.sources import Piece, Source, parquet
from vlmcollate.errors import ConfigError
from vlmcollate.validators import check_count

_SECONDS = 0.2
"""How often progress is told at most."""


@attrs.frozen(kw_only=True)
class Progress:
    """How far `prepare_dataset` is.

    Attributes:
        done: Rows of the source that were read, in this run or an earlier one.
        total: All rows of the source.
        dropped: Samples that were left out, in the shards that are complete.
        resumed: Rows that an earlier run did.
    """

    done: int
    total: int
    dropped: int
    resumed: int


def prepare_dataset(
    source: object,
    output_dir: str | os.PathLike[str],
    *,
    collator: BaseCollator,
    num_proc: int = 1,
    max_length: int | None = None,
    packing: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    resume: bool = True,
    rows_per_shard: int = 1000,
    on_progress: Callable[[Progress], None] | None = None,
) -> Manifest:
    """Encodes a dataset into a folder of Parquet shards, which `PreparedDataset` reads.

    Each piece of the source becomes one shard, which appears only when it is complete. A run that
    was killed goes on where it stopped, and in the end the files are the same, byte for byte, as
    those of a run that was not, whatever `num_proc` is.

    Args:
        source: A path, or several, of `.jsonl` or `.parquet` files or folders of them; a folder
            that `Dataset.save_to_disk` wrote; or a map-style dataset, such as a `datasets.Dataset`.
        output_dir: The folder; made where it is missing.
        collator: Encodes the samples. With `on_overlong="drop"` those that are too long are left
            out and counted.
        num_proc: How many processes encode.
        max_length: The most tokens of a sample or a pack, in place of the collator's own.
        packing: Whether to join the samples of a shard into packs of at most `max_length`.
        on_error: Whether a sample at fault stops the run, or is left out and counted.
        resume: Whether to keep the shards of an earlier run of the same source and collator; else a
            folder that holds some is refused. Only one run at a time may write to a folder.
        rows_per_shard: The most rows of the source in a shard.
        on_progress: Called with a `Progress` at the start, after each shard, and while rows are
            read a few times a second at most.

    Returns:
        The manifest, which is also in the folder: counts, lengths, what was dropped and why, and a
        fingerprint of all that the encoding depends on.

    Raises:
        ConfigError: The source is not readable, the options do not fit, the folder holds the work
            of another run or of one that is still going on, or one of its shards is damaged.
        SampleError: A sample is at fault; the error says its file and row.
    """
    check_count("num_proc", num_proc)
    with running(
        source,
        output_dir,
        collator=collator,
        max_length=max_length,
        packing=packing,
        on_error=on_error,
        resume=resume,
        rows_per_shard=rows_per_shard,
    ) as run:
        left, finished = run.left(), run.finished()
        total = sum(piece.rows for piece in run.pieces)
        teller = _Teller(
            on_progress=on_progress,
            total=total,
            resumed=total - sum(piece.rows for piece, _ in left),
            dropped=sum(sum(facts.dropped.values()) for facts in finished),
        )
        teller.now()
        with closing(_written(run.encoder, left, num_proc, teller)) as written:
            for facts in written:
                teller.dropped += sum(facts.dropped.values())
                teller.now()
        return run.finish()


@attrs.define(kw_only=True)
class _Teller:
    """Tells of progress, often enough and not too often."""

    on_progress: Callable[[Progress], None] | None
    total: int
    resumed: int
    dropped: int
    read: int = 0
    _last: float = 0.0

    def reached(self, read: int) -> None:
        """So many rows were read in this run."""
        if read == self.read:
            return
        self.read = read
        if time.monotonic() - self._last > _SECONDS:
            self.now()

    def now(self) -> None:
        self._last = time.monotonic()
        if self.on_progress is not None:
            progress = Progress(
                done=self.resumed + self.read,
                total=self.total,
                dropped=self.dropped,
                resumed=self.resumed,
            )
            self.on_progress(progress)


@attrs.frozen(kw_only=True)
class Run:
    """What a run has to do, whoever does it.

    Attributes:
        folder: Where the shards go.
        pieces: The pieces of the source, one a shard.
        encoder: Encodes a piece.
        plan: The manifest's `fingerprint`, `source` and `options`.
    """

    folder: Path
    pieces: tuple[Piece, ...]
    encoder: Encoder
    plan: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The shard of each piece."""
        return [self.folder / shard_name(number) for number in range(len(self.pieces))]

    def left(self) -> list[tuple[Piece, Path]]:
        """The pieces without a shard, and where it goes."""
        pairs = zip(self.pieces, self.files, strict=True)
        return [(piece, file) for piece, file in pairs if not file.exists()]

    def finished(self) -> list[ShardFacts]:
        """What the shards that are there say of themselves, after a look at all their bytes."""
        return [self._facts(file, whole=True) for file in self.files if file.exists()]

    def finish(self) -> Manifest:
        """Writes the manifest."""
        manifest = Manifest(shards=tuple(map(self._facts, self.files)), **self.plan)
        manifest.save(self.folder)
        return manifest

    def _facts(self, file: Path, *, whole: bool = False) -> ShardFacts:
        shard = Shard.of(file)
        shard.check_origin(self.encoder.run)
        if whole:
            shard.check_groups()
        return shard.facts


@contextmanager
def running(
    source: object,
    output_dir: str | os.PathLike[str],
    *,
    collator: BaseCollator,
    max_length: int | None,
    packing: bool,
    on_error: str,
    resume: bool,
    rows_per_shard: int,
) -> Iterator[Run]:
    """Looks at the source and holds the folder; see `prepare_dataset`."""
    if not isinstance(collator, BaseCollator):
        raise ConfigError(
            f"collator must be a collator, such as collator_for(processor), not a "
            f"{type(collator).__name__}"
        )
    check_count("rows_per_shard", rows_per_shard)
    for name, value in (("packing", packing), ("resume", resume)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {value!r}")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
    if max_length is not None:
        collator = attrs.evolve(collator, max_length=max_length)
    if packing and collator.max_length is None:
        raise ConfigError("packing=True needs max_length, the most tokens of a pack")
    if packing and collator.packing_refusal:
        name = type(collator).__name__
        raise ConfigError(f"{name} makes no packs: {collator.packing_refusal}")
    parquet()
    found = Source.of(source, rows_per_shard=rows_per_shard)
    identity, unsure = found.identity()
    plan: dict[str, Any] = {
        "fingerprint": fingerprint_of(collator),
        "source": identity,
        "options": {"packing": packing, "rows_per_shard": rows_per_shard, **keeping_of(collator)},
    }
    encoder = Encoder(
        run=run_of(plan),
        collator=collator,
        packing=packing,
        on_error=on_error,
        dataset=found.dataset,
    )
    folder = Path(output_dir)
    with claimed(folder, plan, resume=resume, unsure=unsure):
        yield Run(folder=folder, pieces=found.pieces, encoder=encoder, plan=plan)


def _written(
    encoder: Encoder, left: Sequence[tuple[Piece, Path]], num_proc: int, teller: _Teller
) -> Generator[ShardFacts, None, None]:
    """Writes the shards that are left, and tells of each as soon as it is there."""
    if num_proc == 1:
        for piece, file in left:
            yield encoder.write(piece, file, lambda: teller.reached(teller.read + 1))
        return
    yield from write_shards(encoder, left, num_proc, teller.reached)
