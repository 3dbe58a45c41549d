"""Encoding a whole dataset ahead of time, into shards of Arrow."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Literal

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoder import PieceEncoder
from vlmcollate.data.manifest import Manifest, ShardFacts
from vlmcollate.data.processes import (
    Task,
    check_program_is_importable,
    exit_if_unguarded,
    write_shards,
)
from vlmcollate.data.rejected import add_rejected
from vlmcollate.data.reporting import Progress, Reporter
from vlmcollate.data.run import open_run
from vlmcollate.validators import check_count


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
    """Encodes a dataset into a folder of Arrow shards for `PreparedDataset`.

    Each piece of the source becomes one shard, which appears only when it is complete. A run that
    was killed can be resumed. Its files are then the same, byte for byte, as those of an
    uninterrupted run, for any `num_proc`.

    Args:
        source: One or several paths of `.jsonl` or `.parquet` files or folders of them, none of
            which may hold further files of data, such as in a subfolder; a folder that
            `Dataset.save_to_disk` wrote; a map-style dataset, such as a `datasets.Dataset`; or a
            stream: an iterable of rows, such as a `datasets.IterableDataset`, or a function that
            returns one. A resumed run reads a stream from the start, and compares the rows that it
            skips. A stream may reuse the dictionaries and lists of a row for the next one, but not
            its images and arrays.
        output_dir: The folder; created if it is missing.
        collator: Encodes the samples. With `on_overlong="drop"`, samples that are too long are
            dropped and counted.
        num_proc: The number of processes that encode.
        max_length: The maximum tokens of a sample or a pack, in place of the collator's own.
        packing: Whether to join the samples of a shard into packs of at most `max_length`.
        on_error: The policy for bad samples: `"raise"`, or `"skip"` and count them.
        resume: Whether to keep the shards of an earlier run with the same source and collator. If
            not, a folder with shards is refused. Only one run at a time may write to a folder.
        rows_per_shard: The maximum rows of the source in a shard. Those of a stream are in memory.
        on_progress: Called with a `Progress` at the start, after each shard, and at most a few
            times a second while rows are read or skipped.

    Returns:
        The manifest, which is also in the folder: counts, lengths, the dropped samples by reason,
        and a fingerprint of everything that the encoding depends on. `rejected.jsonl` beside it
        lists each dropped row with its reason and remedy, and is up to date after every shard.

    Raises:
        ConfigError: The source is not readable or would be read in part, the options do not fit or
            cannot be sent to a process, the processes cannot import the running program, the folder
            holds a different run or is locked by another, or one of its shards is damaged.
        SampleError: A sample is bad; the error names its file and row.
        SourceError: A stream raised an error, or a dataset one that every other row would raise,
            too, such as that of a full disk, or one that may pass, such as a timeout; the error
            names the row.
    """
    exit_if_unguarded()
    check_count("num_proc", num_proc)
    if num_proc > 1:
        check_program_is_importable()
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
        reporter = Reporter(on_progress=on_progress, total=run.total)
        tasks = run.tasks(reporter.skip)
        with closing(_write_shards(run.encoder, tasks, num_proc, reporter)) as written:
            for facts in written:
                if facts.dropped:
                    reporter.dropped += sum(facts.dropped.values())
                    add_rejected(run.folder, run.folder / facts.file)
                reporter.report()
        return run.finish()


def _write_shards(
    encoder: PieceEncoder, tasks: Iterator[Task], num_proc: int, reporter: Reporter
) -> Generator[ShardFacts, None, None]:
    """Writes the shards that are left, and yields the facts of each as soon as it is complete."""
    first = list(islice(tasks, num_proc))
    reporter.report()
    tasks = chain(first, tasks)
    if num_proc == 1:
        for piece, file in tasks:
            yield encoder.write(piece, file, lambda: reporter.update(reporter.read + 1))
    elif first:
        yield from write_shards(encoder, tasks, len(first), reporter.update)
