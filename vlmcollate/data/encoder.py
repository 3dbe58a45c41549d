"""Encoding a piece of a source into a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, TypeVar

import attrs
import numpy as np

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoded import sample_from_bytes, sample_to_bytes
from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.rejected import rejection
from vlmcollate.data.shard_writing import Row, write_shard
from vlmcollate.data.sources import Piece, read_piece, row_label
from vlmcollate.data.writing import OutputFile, disk_errors
from vlmcollate.errors import ConversationError, SampleError, SampleTooLongError, StrategyError
from vlmcollate.packing import plan_packs
from vlmcollate.sample import IGNORE_INDEX, EncodedSample

T = TypeVar("T")


@attrs.define
class _Tally:
    """Counts the samples of a shard."""

    tokens: int = 0
    trained_tokens: int = 0
    lengths: Counter[str] = attrs.field(factory=Counter)
    dropped: Counter[str] = attrs.field(factory=Counter)
    examples: dict[str, str] = attrs.field(factory=dict)
    rejected: list[dict[str, Any]] = attrs.field(factory=list)

    def add(self, sample: EncodedSample) -> None:
        length = len(sample)
        self.tokens += length
        self.trained_tokens += int(np.count_nonzero(sample.labels.numpy() != IGNORE_INDEX))
        self.lengths[str(1 << max(length - 1, 0).bit_length())] += 1

    def drop(self, error: SampleError, piece: Piece, offset: int) -> None:
        name = type(error).__name__
        self.dropped[name] += 1
        self.examples.setdefault(name, f"{row_label(piece, offset)}: {error}")
        row = piece.first + offset
        self.rejected.append(rejection(error, source=piece.source, row=row))

    def facts(self, file: str, run: str, digest: str, rows: int) -> ShardFacts:
        return ShardFacts(
            file=file,
            run=run,
            rows=rows,
            samples=self.lengths.total(),
            tokens=self.tokens,
            trained_tokens=self.trained_tokens,
            lengths=dict(sorted(self.lengths.items())),
            dropped=dict(sorted(self.dropped.items())),
            examples=dict(sorted(self.examples.items())),
            digest=digest,
        )


@attrs.frozen(kw_only=True)
class PieceEncoder:
    """Encodes pieces of a source; every process of a pool holds one.

    Attributes:
        run: The identifier of the run, which its shards hold.
        collator: Encodes the samples.
        packing: Whether to join the samples of a piece into packs.
        on_error: The policy for bad samples: `"raise"`, or `"skip"` and count them.
        dataset: The source, if it is in memory.
    """

    run: str
    collator: BaseCollator
    packing: bool
    on_error: str
    dataset: Any = None

    def write(
        self, piece: Piece, file: Path, on_read: Callable[[], None] = lambda: None
    ) -> ShardFacts:
        """Encodes a piece into a shard, with only a few samples in memory at a time.

        Args:
            piece: The piece.
            file: The shard to write.
            on_read: Called after each row of the piece.

        Raises:
            SampleError: A sample is bad, and the policy is to raise.
        """
        tally = _Tally()
        samples = self._samples(piece, tally, on_read)
        if self.packing:
            rows = self._packs(samples, file)
        else:
            rows = (([number], sample) for number, sample in samples)
        facts = partial(tally.facts, file.name, self.run, piece.digest)
        return write_shard(file, rows, facts, tally.rejected)

    def _samples(
        self, piece: Piece, tally: _Tally, on_read: Callable[[], None]
    ) -> Iterator[tuple[int, EncodedSample]]:
        """Yields the good samples of a piece, each with the number of its row."""
        for offset, example in enumerate(read_piece(piece, self.dataset)):
            attempt = partial(self._attempt, piece, offset, tally)
            for encode in attempt(partial(self._encoders, example)) or ():
                sample = attempt(encode)
                if sample is not None:
                    tally.add(sample)
                    yield piece.first + offset, sample
            on_read()

    def _encoders(self, example: object) -> list[Callable[[], EncodedSample]]:
        if isinstance(example, SampleError):
            raise example
        return self.collator.turn_encoders(example)

    def _attempt(self, piece: Piece, offset: int, tally: _Tally, call: Callable[[], T]) -> T | None:
        """Returns what a call returns, or `None` if a bad sample is dropped."""
        try:
            return _not_too_deep(call)
        except SampleError as error:
            if not self._drops(error):
                raise type(error)(f"{row_label(piece, offset)}: {error}") from error
            tally.drop(error, piece, offset)
        except StrategyError as error:
            raise StrategyError(f"{row_label(piece, offset)}: {error}") from error
        return None

    def _drops(self, error: SampleError) -> bool:
        """Whether a sample with this error is dropped, instead of ending the run."""
        is_too_long = isinstance(error, SampleTooLongError)
        return self.on_error == "skip" or (is_too_long and self.collator.on_overlong == "drop")

    def _packs(self, samples: Iterator[tuple[int, EncodedSample]], file: Path) -> Iterator[Row]:
        """Yields packs; the samples of a piece wait on the disk until all lengths are known."""
        limit = self.collator.max_length
        assert limit is not None  # noqa: S101  # as prepare_dataset checked
        with _waiting_samples(file) as waiting:
            numbers = []
            for number, sample in samples:
                numbers.append(number)
                waiting.add(sample)
            for pack in plan_packs(waiting.lengths, max_length=limit):
                places = pack.tolist()
                joined = self.collator.pack([waiting.read(place) for place in places])
                yield [numbers[place] for place in places], joined


def _not_too_deep(call: Callable[[], T]) -> T:
    try:
        return call()
    except RecursionError as error:
        raise ConversationError("the row is nested too deeply to be read") from error


@attrs.define
class _WaitingSamples:
    """Encoded samples in a temporary file."""

    data: BinaryIO
    target: OutputFile
    lengths: list[int] = attrs.field(factory=list)
    edges: list[int] = attrs.field(factory=lambda: [0])

    def add(self, sample: EncodedSample) -> None:
        self.lengths.append(len(sample))
        self.edges.append(self.edges[-1] + self.target.write(sample_to_bytes(sample)))

    def read(self, place: int) -> EncodedSample:
        start, end = self.edges[place : place + 2]
        self.data.seek(start)
        return sample_from_bytes(self.data.read(end - start))


@contextmanager
def _waiting_samples(file: Path) -> Iterator[_WaitingSamples]:
    """Opens a file without a name for the samples of a shard; it disappears with the process."""
    with disk_errors(file):
        data: Any = TemporaryFile(dir=file.parent, buffering=0)  # noqa: SIM115  # closed below
    with data:
        yield _WaitingSamples(data, OutputFile(file, data))
