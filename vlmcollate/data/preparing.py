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
from vlmcollate.data.encoder import PieceEncoder
from vlmcollate.data.locking import lock_folder
from vlmcollate.data.manifest import (
    Manifest,
    ShardFacts,
    fingerprint_of,
    keeping_options,
    run_id,
    shard_name,
)
from vlmcollate.data.processes import write_shards
from vlmcollate.data.rejected import add_rejected, write_rejected
from vlmcollate.data.shards import Shard
from vlmcollate.data.sources import Piece, Source, import_parquet
from vlmcollate.data.writing import DiskFullError, shown_bytes
from vlmcollate.errors import ConfigError
from vlmcollate.validators import check_count

_SECONDS = 0.2
"""The minimum interval between two reports of progress."""


@attrs.frozen(kw_only=True)
class Progress:
    """The progress of `prepare_dataset`.

    Attributes:
        done: Rows of the source that this run or an earlier one read.
        total: All rows of the source.
        dropped: Dropped samples in the shards that are complete.
        resumed: Rows in the shards of an earlier run.
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
    """Encodes a dataset into a folder of Parquet shards for `PreparedDataset`.

    Each piece of the source becomes one shard, which appears only when it is complete. A run that
    was killed can be resumed. Its files are then the same, byte for byte, as those of an
    uninterrupted run, for any `num_proc`.

    Args:
        source: One or several paths of `.jsonl` or `.parquet` files or folders of them; a folder
            that `Dataset.save_to_disk` wrote; or a map-style dataset, such as a `datasets.Dataset`.
        output_dir: The folder; created if it is missing.
        collator: Encodes the samples. With `on_overlong="drop"`, samples that are too long are
            dropped and counted.
        num_proc: The number of processes that encode.
        max_length: The maximum tokens of a sample or a pack, in place of the collator's own.
        packing: Whether to join the samples of a shard into packs of at most `max_length`.
        on_error: The policy for bad samples: `"raise"`, or `"skip"` and count them.
        resume: Whether to keep the shards of an earlier run with the same source and collator. If
            not, a folder with shards is refused. Only one run at a time may write to a folder.
        rows_per_shard: The maximum rows of the source in a shard.
        on_progress: Called with a `Progress` at the start, after each shard, and at most a few
            times a second while rows are read.

    Returns:
        The manifest, which is also in the folder: counts, lengths, the dropped samples by reason,
        and a fingerprint of everything that the encoding depends on. `rejected.jsonl` beside it
        lists each dropped row with its reason and remedy, and is up to date after every shard.

    Raises:
        ConfigError: The source is not readable, the options do not fit, the folder holds a
            different run or is locked by another, or one of its shards is damaged.
        SampleError: A sample is bad; the error names its file and row.
    """
    check_count("num_proc", num_proc)
    with open_run(
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
        reporter = _Reporter.of(run, left, finished, on_progress)
        reporter.report()
        with closing(_write_left(run.encoder, left, num_proc, reporter)) as written:
            for facts in written:
                if facts.dropped:
                    reporter.dropped += sum(facts.dropped.values())
                    add_rejected(run.folder, run.folder / facts.file)
                reporter.report()
        return run.finish()


@attrs.define(kw_only=True)
class _Reporter:
    """Reports progress, at most every `_SECONDS` while rows are read."""

    on_progress: Callable[[Progress], None] | None
    total: int
    resumed: int
    dropped: int
    read: int = 0
    _last: float = 0.0

    @classmethod
    def of(
        cls,
        run: Run,
        left: Sequence[tuple[Piece, Path]],
        finished: Sequence[ShardFacts],
        on_progress: Callable[[Progress], None] | None,
    ) -> _Reporter:
        total = sum(piece.rows for piece in run.pieces)
        return cls(
            on_progress=on_progress,
            total=total,
            resumed=total - sum(piece.rows for piece, _ in left),
            dropped=sum(sum(facts.dropped.values()) for facts in finished),
        )

    def update(self, read: int) -> None:
        """Takes the number of rows that this run has read."""
        if read == self.read:
            return
        self.read = read
        if time.monotonic() - self._last > _SECONDS:
            self.report()

    def report(self) -> None:
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
    """The work of a run, on one machine or many.

    Attributes:
        folder: The folder for the shards.
        pieces: The pieces of the source, one per shard.
        encoder: Encodes a piece.
        plan: The manifest's `fingerprint`, `source` and `options`.
    """

    folder: Path
    pieces: tuple[Piece, ...]
    encoder: PieceEncoder
    plan: dict[str, Any]

    @property
    def files(self) -> list[Path]:
        """The shard of each piece."""
        return [self.folder / shard_name(number) for number in range(len(self.pieces))]

    def left(self) -> list[tuple[Piece, Path]]:
        """Lists the pieces without a shard, each with the shard to write."""
        pairs = zip(self.pieces, self.files, strict=True)
        return [(piece, file) for piece, file in pairs if not file.exists()]

    def finished(self) -> list[ShardFacts]:
        """Verifies all bytes of the existing shards, and returns their facts."""
        found = [self._facts(file, whole=True) for file in self.files if file.exists()]
        write_rejected(self.folder, self._rejecting(found))
        return found

    def finish(self) -> Manifest:
        """Writes the manifest."""
        manifest = Manifest(shards=tuple(map(self._facts, self.files)), **self.plan)
        write_rejected(self.folder, self._rejecting(manifest.shards))
        manifest.save(self.folder)
        return manifest

    def _rejecting(self, shards: Sequence[ShardFacts]) -> list[Path]:
        """Lists the shards that rejected rows."""
        return [self.folder / facts.file for facts in shards if facts.dropped]

    def _facts(self, file: Path, *, whole: bool = False) -> ShardFacts:
        shard = Shard.of(file)
        shard.check_origin(self.encoder.run)
        if whole:
            shard.check_groups()
        return shard.facts


@contextmanager
def open_run(
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
    """Checks the options, reads the source and locks the folder; see `prepare_dataset`."""
    _check_options(
        collator, packing=packing, on_error=on_error, resume=resume, rows_per_shard=rows_per_shard
    )
    if max_length is not None:
        collator = attrs.evolve(collator, max_length=max_length)
    if packing:
        _check_packing(collator)
    import_parquet()
    found = Source.of(source, rows_per_shard=rows_per_shard)
    identity, unverifiable = found.identity()
    plan: dict[str, Any] = {
        "fingerprint": fingerprint_of(collator),
        "source": identity,
        "options": {
            "packing": packing,
            "rows_per_shard": rows_per_shard,
            **keeping_options(collator),
        },
    }
    encoder = PieceEncoder(
        run=run_id(plan),
        collator=collator,
        packing=packing,
        on_error=on_error,
        dataset=found.dataset,
    )
    folder = Path(output_dir)
    with lock_folder(folder, plan, resume=resume, unverifiable=unverifiable):
        run = Run(folder=folder, pieces=found.pieces, encoder=encoder, plan=plan)
        try:
            yield run
        except DiskFullError as error:
            raise _with_estimate(error, run) from error


def _with_estimate(error: DiskFullError, run: Run) -> DiskFullError:
    """Adds the space that the shards that are left need, by the size of those that are complete."""
    complete = [file for file in run.files if file.exists()]
    left = run.left()
    rows = sum(piece.rows for piece in run.pieces) - sum(piece.rows for piece, _ in left)
    if not rows or not left:
        return error
    per_row = sum(file.stat().st_size for file in complete) / rows
    needed = per_row * sum(piece.rows for piece, _ in left)
    shards = f"{len(left):,} shard{'' if len(left) == 1 else 's'}"
    whole = f" and about {shown_bytes(needed)} for the {shards} left"
    return DiskFullError(error.file, error.reason, error.free, error.needed, whole)


def _check_options(
    collator: BaseCollator, *, packing: bool, on_error: str, resume: bool, rows_per_shard: int
) -> None:
    if not isinstance(collator, BaseCollator):
        raise ConfigError(
            f"collator is wrong: found a {type(collator).__name__}, expected a collator, such as "
            "collator_for(processor)"
        )
    check_count("rows_per_shard", rows_per_shard)
    for name, value in (("packing", packing), ("resume", resume)):
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {value!r}")
    if on_error not in ("raise", "skip"):
        raise ConfigError(f"on_error must be 'raise' or 'skip', not {on_error!r}")


def _check_packing(collator: BaseCollator) -> None:
    if collator.max_length is None:
        raise ConfigError("packing=True needs max_length; set it to the maximum tokens of a pack")
    if collator.packing_refusal:
        name = type(collator).__name__
        raise ConfigError(f"{name} makes no packs: {collator.packing_refusal}")


def _write_left(
    encoder: PieceEncoder, left: Sequence[tuple[Piece, Path]], num_proc: int, reporter: _Reporter
) -> Generator[ShardFacts, None, None]:
    """Writes the shards that are left, and yields the facts of each as soon as it is complete."""
    if num_proc == 1:
        for piece, file in left:
            yield encoder.write(piece, file, lambda: reporter.update(reporter.read + 1))
        return
    yield from write_shards(encoder, left, num_proc, reporter.update)
