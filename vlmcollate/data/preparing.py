"""Encoding a whole dataset ahead of time, into shards of Parquet."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.data.manifest import (
    MANIFEST,
    Manifest,
    ShardFacts,
    check_same,
    fingerprint_of,
    write_whole,
)
from vlmcollate.data.prepared import ROWS_PER_GROUP, row_of
from vlmcollate.data.sources import Piece, Source, parquet, place_of, rows_of
from vlmcollate.errors import ConfigError, SampleError, SampleTooLongError
from vlmcollate.packing import plan_packs
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

PLAN = "plan.json"
_FACTS = b"vlmcollate"


@attrs.frozen(kw_only=True)
class Progress:
    """How far `prepare_dataset` is.

    Attributes:
        done: Rows of the source that were read, in this run or an earlier one.
        total: All rows of the source.
        dropped: Samples that were left out.
        resumed: Rows that an earlier run did.
    """

    done: int
    total: int
    dropped: int
    resumed: int


@attrs.frozen(kw_only=True)
class Encoder:
    """Encodes a piece of a source; what each process of the pool holds."""

    collator: BaseCollator
    packing: bool
    on_error: str
    dataset: Any = None

    def __call__(self, piece: Piece) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Encodes a piece.

        Returns:
            Its rows, and what a `ShardFacts` says of them.

        Raises:
            SampleError: A sample is at fault, and the policy is to raise.
        """
        samples, numbers = [], []
        dropped: Counter[str] = Counter()
        examples: dict[str, str] = {}
        for offset, example in enumerate(rows_of(piece, self.dataset)):
            try:
                if isinstance(example, SampleError):
                    raise example
                samples.append(self.collator.encode(example))
                numbers.append(piece.first + offset)
            except SampleError as error:
                skips = self.on_error == "skip" or (
                    isinstance(error, SampleTooLongError) and self.collator.on_overlong == "drop"
                )
                told = type(error)(f"{place_of(piece, offset)}: {error}")
                if not skips:
                    raise told from error
                name = type(error).__name__
                dropped[name] += 1
                examples.setdefault(name, str(told))
        rows = list(self._rows(samples, numbers))
        lengths = Counter(str(1 << max(len(s) - 1, 0).bit_length()) for s in samples)
        return rows, {
            "rows": len(rows),
            "samples": len(samples),
            "tokens": sum(map(len, samples)),
            "trained_tokens": sum(int((s.labels != IGNORE_INDEX).sum()) for s in samples),
            "lengths": dict(sorted(lengths.items())),
            "dropped": dict(sorted(dropped.items())),
            "examples": dict(sorted(examples.items())),
        }

    def _rows(
        self, samples: Sequence[EncodedSample], numbers: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        if not self.packing:
            yield from (row_of(s, [n]) for s, n in zip(samples, numbers, strict=True))
            return
        limit = self.collator.max_length
        assert limit is not None  # noqa: S101  # as prepare_dataset checked
        for pack in plan_packs([len(sample) for sample in samples], max_length=limit):
            chosen = pack.tolist()
            joined = self.collator.pack([samples[i] for i in chosen])
            yield row_of(joined, [numbers[i] for i in chosen])


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
            folder that holds some is refused.
        rows_per_shard: The most rows of the source in a shard.
        on_progress: Called with a `Progress` at the start and after each shard.

    Returns:
        The manifest, which is also in the folder: counts, lengths, what was dropped and why, and a
        fingerprint of all that the encoding depends on.

    Raises:
        ConfigError: The source is not readable, the options do not fit, or the folder holds the
            work of another run.
        SampleError: A sample is at fault; the error says its file and row.
    """
    if isinstance(num_proc, bool) or not isinstance(num_proc, int) or num_proc < 1:
        raise ConfigError(f"num_proc must be an integer of at least 1, not {num_proc!r}")
    run = Run.of(
        source,
        output_dir,
        collator=collator,
        max_length=max_length,
        packing=packing,
        on_error=on_error,
        resume=resume,
        rows_per_shard=rows_per_shard,
    )
    left = run.left()
    total = sum(piece.rows for piece in run.pieces)
    read = resumed = total - sum(piece.rows for piece, _ in left)
    dropped = sum(sum(facts.dropped.values()) for facts in run.finished())

    def tell() -> None:
        if on_progress is not None:
            on_progress(Progress(done=read, total=total, dropped=dropped, resumed=resumed))

    tell()
    for piece, facts in _written(run.encoder, left, num_proc):
        read += piece.rows
        dropped += sum(facts.dropped.values())
        tell()
    return run.finish()


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

    @classmethod
    def of(
        cls,
        source: object,
        output_dir: str | os.PathLike[str],
        *,
        collator: BaseCollator,
        max_length: int | None,
        packing: bool,
        on_error: str,
        resume: bool,
        rows_per_shard: int,
    ) -> Run:
        """Looks at the source and takes the folder; see `prepare_dataset`."""
        if (
            isinstance(rows_per_shard, bool)
            or not isinstance(rows_per_shard, int)
            or rows_per_shard < 1
        ):
            raise ConfigError(
                f"rows_per_shard must be an integer of at least 1, not {rows_per_shard!r}"
            )
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        if max_length is not None:
            collator = attrs.evolve(collator, max_length=max_length)
        if packing and collator.max_length is None:
            raise ConfigError("packing=True needs max_length, the most tokens of a pack")
        parquet()
        found = Source.of(source, rows_per_shard=rows_per_shard)
        plan: dict[str, Any] = {
            "fingerprint": fingerprint_of(collator),
            "source": found.identity,
            "options": {
                "max_length": max_length,
                "packing": packing,
                "on_error": on_error,
                "rows_per_shard": rows_per_shard,
            },
        }
        folder = Path(output_dir)
        _claim(folder, plan, resume=resume)
        encoder = Encoder(
            collator=collator, packing=packing, on_error=on_error, dataset=found.dataset
        )
        return cls(folder=folder, pieces=found.pieces, encoder=encoder, plan=plan)

    @property
    def files(self) -> list[Path]:
        """The shard of each piece."""
        return [self.folder / f"{number:06d}.parquet" for number in range(len(self.pieces))]

    def left(self) -> list[tuple[Piece, Path]]:
        """The pieces without a shard, and where it goes."""
        pairs = zip(self.pieces, self.files, strict=True)
        return [(piece, file) for piece, file in pairs if not file.is_file()]

    def finished(self) -> list[ShardFacts]:
        """What the shards that are there say of themselves."""
        return [_facts_of(file) for file in self.files if file.is_file()]

    def finish(self) -> Manifest:
        """Writes the manifest."""
        manifest = Manifest(shards=tuple(map(_facts_of, self.files)), **self.plan)
        manifest.save(self.folder)
        return manifest


def write_shard(file: Path, rows: Sequence[dict[str, Any]], counts: dict[str, Any]) -> ShardFacts:
    """Writes a shard, which appears only when it is complete."""
    import pyarrow as pa

    ints = pa.list_(pa.int32())
    schema = pa.schema(
        {
            "source_rows": pa.list_(pa.int64()),
            "input_ids": ints,
            "label_spans": ints,
            "length": pa.int32(),
            "media_counts": pa.map_(pa.string(), pa.int32()),
            "grids": pa.map_(pa.string(), pa.list_(pa.int64())),
            "token_keys": pa.list_(pa.string()),
            "rest": pa.binary(),
        }
    )
    facts = ShardFacts(file=file.name, **counts)
    told = {_FACTS: json.dumps(attrs.asdict(facts), sort_keys=True)}
    table = pa.Table.from_pylist(list(rows), schema=schema.with_metadata(told))
    sink = pa.BufferOutputStream()
    parquet().write_table(table, sink, row_group_size=ROWS_PER_GROUP, compression="zstd")
    write_whole(file, sink.getvalue())
    return facts


def _claim(folder: Path, plan: dict[str, Any], *, resume: bool) -> None:
    """Writes down what is about to be done, or finds that it is what was being done."""
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".*.part"):
        partial.unlink()
    file = folder / PLAN
    if not file.exists():
        others = sorted(path.name for path in folder.iterdir())
        if others:
            raise ConfigError(
                f"'{folder}' holds other files, such as {others[0]!r}; name a new one"
            )
        write_whole(file, json.dumps(plan, indent=1, sort_keys=True).encode())
        return
    mend = "Name another folder, or remove this one"
    if not resume:
        raise ConfigError(f"'{folder}' holds an earlier run, and resume is off. {mend}")
    try:
        earlier = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"'{file}' is damaged ({error}). {mend}") from error
    for part, name in (("source", "another source"), ("fingerprint", "another collator")):
        check_same(earlier[part], plan[part], f"'{folder}' was begun with {name}", mend)
    check_same(
        earlier["options"], plan["options"], f"'{folder}' was begun with other options", mend
    )
    (folder / MANIFEST).unlink(missing_ok=True)


def _facts_of(file: Path) -> ShardFacts:
    metadata = parquet().ParquetFile(file).schema_arrow.metadata
    return ShardFacts(**json.loads(metadata[_FACTS]))


def _written(
    encoder: Encoder, left: Sequence[tuple[Piece, Path]], num_proc: int
) -> Iterator[tuple[Piece, ShardFacts]]:
    """Writes the shards that are left, and tells of each as soon as it is there."""
    if num_proc == 1:
        for piece, file in left:
            yield piece, write_shard(file, *encoder(piece))
        return
    # a forked process would inherit the locks of torch's and the tokenizer's threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        num_proc, mp_context=context, initializer=_start, initargs=(encoder,)
    ) as pool:
        tasks: dict[Future[ShardFacts], Piece] = {
            pool.submit(_work, piece, file): piece for piece, file in left
        }
        pending = set(tasks)
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for task in finished:
                    yield tasks[task], task.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_ENCODER: list[Encoder] = []
"""The encoder of this process of the pool."""


def _start(encoder: Encoder) -> None:
    torch.set_num_threads(1)
    _ENCODER[:] = [encoder]


def _work(piece: Piece, file: Path) -> ShardFacts:
    return write_shard(file, *_ENCODER[0](piece))
