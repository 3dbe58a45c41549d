"""From a piece of a source to a shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.data.encoded import sample_bytes, sample_from_bytes
from vlmcollate.data.manifest import ShardFacts
from vlmcollate.data.prepared import row_of
from vlmcollate.data.shards import write_shard
from vlmcollate.data.sources import Piece, place_of, rows_of
from vlmcollate.data.writing import OutputFile, disk_errors
from vlmcollate.errors import ConversationError, SampleError, SampleTooLongError, StrategyError
from vlmcollate.packing import plan_packs
from vlmcollate.sample import IGNORE_INDEX, EncodedSample


@attrs.define
class _Tally:
    """Counts what a shard says of itself."""

    tokens: int = 0
    trained_tokens: int = 0
    lengths: Counter[str] = attrs.field(factory=Counter)
    dropped: Counter[str] = attrs.field(factory=Counter)
    examples: dict[str, str] = attrs.field(factory=dict)

    def add(self, sample: EncodedSample) -> None:
        self.tokens += len(sample)
        self.trained_tokens += int((sample.labels != IGNORE_INDEX).sum())
        self.lengths[str(1 << max(len(sample) - 1, 0).bit_length())] += 1

    def drop(self, error: SampleError) -> None:
        name = type(error).__name__
        self.dropped[name] += 1
        self.examples.setdefault(name, str(error))

    def facts(self, file: str, run: str, rows: int) -> ShardFacts:
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
        )


@attrs.frozen(kw_only=True)
class Encoder:
    """Encodes a piece of a source; what each process of a pool holds.

    Attributes:
        run: What the run is known by, which its shards hold.
        collator: Encodes the samples.
        packing: Whether to join those of a piece into packs.
        on_error: Whether a sample at fault ends it, or is left out and counted.
        dataset: The source, where it is in memory.
    """

    run: str
    collator: BaseCollator
    packing: bool
    on_error: str
    dataset: Any = None

    def write(
        self, piece: Piece, file: Path, on_read: Callable[[], None] = lambda: None
    ) -> ShardFacts:
        """Encodes a piece into a shard, holding only a few samples in memory at a time.

        Args:
            piece: What to encode.
            file: Where the shard goes.
            on_read: Called after each row of the piece.

        Returns:
            What the shard says of itself.

        Raises:
            SampleError: A sample is at fault, and the policy is to raise.
        """
        tally = _Tally()
        samples = self._samples(piece, tally, on_read)
        if self.packing:
            rows = self._packs(samples, file.parent)
        else:
            rows = (row_of(sample, [number]) for number, sample in samples)
        return write_shard(file, rows, lambda count: tally.facts(file.name, self.run, count))

    def _samples(
        self, piece: Piece, tally: _Tally, on_read: Callable[[], None]
    ) -> Iterator[tuple[int, EncodedSample]]:
        for offset, example in enumerate(rows_of(piece, self.dataset)):
            try:
                sample = self._encoded(example)
            except SampleError as error:
                told = type(error)(f"{place_of(piece, offset)}: {error}")
                too_long = isinstance(error, SampleTooLongError)
                if self.on_error != "skip" and not (
                    too_long and self.collator.on_overlong == "drop"
                ):
                    raise told from error
                tally.drop(told)
            except StrategyError as error:
                raise StrategyError(f"{place_of(piece, offset)}: {error}") from error
            else:
                tally.add(sample)
                yield piece.first + offset, sample
            on_read()

    def _encoded(self, example: object) -> EncodedSample:
        if isinstance(example, SampleError):
            raise example
        try:
            return self.collator.encode(example)
        except RecursionError as error:
            raise ConversationError("the row is nested too deeply to be read") from error

    def _packs(
        self, samples: Iterator[tuple[int, EncodedSample]], folder: Path
    ) -> Iterator[dict[str, Any]]:
        """The packs of a piece, whose samples wait on disk until all lengths are known."""
        limit = self.collator.max_length
        assert limit is not None  # noqa: S101  # as prepare_dataset checked
        numbers, lengths, edges = [], [], [0]
        name = folder / "the samples of a shard"
        with disk_errors(name):  # without a name, so it goes with the process
            waiting = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # closed below
        with waiting:
            target = OutputFile(name, waiting)
            for number, sample in samples:
                numbers.append(number)
                lengths.append(len(sample))
                edges.append(edges[-1] + target.write(sample_bytes(sample)))

            def sample_at(place: int) -> EncodedSample:
                waiting.seek(edges[place])
                return sample_from_bytes(waiting.read(edges[place + 1] - edges[place]))

            for pack in plan_packs(lengths, max_length=limit):
                places = pack.tolist()
                joined = self.collator.pack([sample_at(place) for place in places])
                yield row_of(joined, [numbers[place] for place in places])
