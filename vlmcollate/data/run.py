"""The work of a run that prepares a dataset."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoder import PieceEncoder
from vlmcollate.data.fingerprint import fingerprint_of, keeping_options
from vlmcollate.data.locking import lock_folder
from vlmcollate.data.manifest import (
    Manifest,
    ShardFacts,
    run_id,
    shard_name,
)
from vlmcollate.data.parquet_rows import import_parquet
from vlmcollate.data.processes import Task
from vlmcollate.data.rejected import write_rejected
from vlmcollate.data.shards import Shard
from vlmcollate.data.sources import Piece, Source
from vlmcollate.data.streams import cut_stream, is_stream
from vlmcollate.data.writing import DiskFullError, shown_bytes
from vlmcollate.errors import ConfigError
from vlmcollate.validators import check_count

_REMEDY = "Name another folder, or remove this one"


@attrs.frozen(kw_only=True)
class Run:
    """The work of a run, on one machine or many.

    Attributes:
        folder: The folder for the shards.
        pieces: The pieces of the source, one per shard.
        encoder: Encodes a piece.
        plan: The manifest's `fingerprint`, `source` and `options`.
        stream: The source, if it is a stream.
        rows_per_shard: The maximum rows of a piece.
    """

    folder: Path
    pieces: tuple[Piece, ...]
    encoder: PieceEncoder
    plan: dict[str, Any]
    stream: Any = None
    rows_per_shard: int = 1

    @property
    def files(self) -> list[Path]:
        """The shards: one for each piece, or all those of a stream so far."""
        if self.stream is None:
            return [self.folder / shard_name(number) for number in range(len(self.pieces))]
        numbered = (self.folder / shard_name(number) for number in count())
        return list(takewhile(Path.exists, numbered))

    @property
    def total(self) -> int | None:
        """The rows of the source, or `None` for a stream."""
        return sum(piece.rows for piece in self.pieces) if self.stream is None else None

    def left(self) -> list[Task]:
        """Lists the pieces without a shard, each with the shard to write; none of a stream."""
        pairs = zip(self.pieces, self.files, strict=False)
        return [(piece, file) for piece, file in pairs if not file.exists()]

    def tasks(self, on_skip: Callable[[ShardFacts], None] = lambda _: None) -> Iterator[Task]:
        """Verifies all bytes of the existing shards, and yields the pieces that are left.

        Args:
            on_skip: Called with the facts of each existing shard.

        Raises:
            ConfigError: A shard is damaged or of other rows.
        """
        existing = self._existing()
        write_rejected(self.folder, existing)
        if self.stream is not None:
            yield from self._tasks_of_stream(existing, on_skip)
            return
        for file in existing:
            on_skip(self._facts(file, whole=True))
        yield from self.left()

    def _existing(self) -> list[Path]:
        if self.stream is None:
            return [file for file in self.files if file.exists()]
        shards = self.folder.glob("*.arrow")
        return sorted(file for file in shards if re.fullmatch(r"\d{6,}", file.stem))

    def _tasks_of_stream(
        self, existing: Sequence[Path], on_skip: Callable[[ShardFacts], None]
    ) -> Iterator[Task]:
        number, complete = 0, set(existing)
        for number, piece in enumerate(cut_stream(self.stream, self.rows_per_shard), 1):
            file = self.folder / shard_name(number - 1)
            if file not in complete:
                yield piece, file
                continue
            facts = self._facts(file, whole=True)
            if not piece.digest or facts.digest != piece.digest:
                which = "differ" if piece.digest else "cannot be hashed and so not compared"
                raise ConfigError(
                    f"'{file}' may be of other rows: rows {piece.first} to "
                    f"{piece.first + piece.rows - 1} of the stream {which}. {_REMEDY}"
                )
            on_skip(facts)
        beyond = [file for file in existing if int(file.stem) >= number]
        if beyond:
            raise ConfigError(
                f"'{beyond[0]}' is of other rows: the stream ends after {number:,} "
                f"shard{'' if number == 1 else 's'}. {_REMEDY}"
            )

    def finish(self) -> Manifest:
        """Writes the manifest."""
        rejecting: list[Path] = []
        manifest = Manifest.of(self._all_facts(rejecting), self.plan)
        write_rejected(self.folder, rejecting)
        manifest.save(self.folder)
        return manifest

    def _all_facts(self, rejecting: list[Path]) -> Iterator[ShardFacts]:
        """Yields the facts of all shards, and adds the shards that rejected rows to a list."""
        for file in self.files:
            facts = self._facts(file)
            if facts.dropped:
                rejecting.append(file)
            yield facts

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
    stream = source if is_stream(source) else None
    found = Source() if stream is not None else Source.of(source, rows_per_shard=rows_per_shard)
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
        run = Run(
            folder=folder,
            pieces=found.pieces,
            encoder=encoder,
            plan=plan,
            stream=stream,
            rows_per_shard=rows_per_shard,
        )
        try:
            yield run
        except DiskFullError as error:
            raise _with_estimate(error, run) from error


def _with_estimate(error: DiskFullError, run: Run) -> DiskFullError:
    """Adds the space that the shards that are left need, by the size of those that are complete."""
    if run.stream is not None:
        return error
    complete = [file for file in run.files if file.exists()]
    left = run.left()
    rows = sum(piece.rows for piece in run.pieces) - sum(piece.rows for piece, _ in left)
    if not rows or not left:
        return error
    per_row = sum(file.stat().st_size for file in complete) / rows
    needed = per_row * sum(piece.rows for piece, _ in left)
    shards = f"{len(left):,} shard{'' if len(left) == 1 else 's'}"
    whole = f" and about {shown_bytes(needed)} for the {shards} left"
    size = max(error.needed, needed / len(left))
    return DiskFullError(error.file, error.reason, error.free, int(size), whole)


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
