"""Sources of examples, cut into pieces."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.data.dataset_checks import check_dataset
from vlmcollate.data.source_changes import check_unchanged, stamp_of, unchanged_rows
from vlmcollate.data.source_files import as_file, open_file, parquet_input, suffix_of
from vlmcollate.data.source_folders import SUFFIXES, Kind, find_files
from vlmcollate.data.source_hash import UnknownContentError, hash_file, hash_rows
from vlmcollate.errors import ConfigError, ConversationError

_SAVED = ("dataset_info.json", "dataset_dict.json")


@attrs.frozen(kw_only=True)
class Piece:
    """Consecutive rows of a source, which are prepared together.

    Attributes:
        source: The file, or "dataset" for a dataset in memory.
        kind: The format of the source.
        first: The number of its first row in the source.
        rows: The number of its rows.
        start: The position of its first byte, in JSON Lines.
        examples: Its rows, if it is of a stream.
        digest: The hash of these rows, or "" if their content cannot be hashed.
        stamp: What the system kept about the file when its rows were counted.
    """

    source: str
    kind: Kind
    first: int
    rows: int
    start: int = 0
    examples: tuple[Any, ...] = ()
    digest: str = ""
    stamp: str = ""


@attrs.frozen(kw_only=True, eq=False)
class Source:
    """Examples in files of JSON lines or Parquet, or a `datasets.Dataset`.

    Attributes:
        pieces: The pieces, in order.
        files: The files that hold the examples.
        stamps: What the system kept about each file before it was read.
        dataset: The dataset that holds the examples, or `None`.
    """

    pieces: tuple[Piece, ...] = ()
    files: tuple[str | Path, ...] = ()
    stamps: tuple[str, ...] = ()
    dataset: Any = None

    @classmethod
    def of(cls, source: object, *, rows_per_shard: int) -> Source:
        """Finds the files and the pieces of a source.

        Args:
            source: One or several paths of `.jsonl` or `.parquet` files or folders of them, or
                their URLs in object stores; a `.json` file with a list; a folder that
                `Dataset.save_to_disk` wrote; or a map-style dataset, such as a `datasets.Dataset`
                or a list.
            rows_per_shard: The maximum rows of a piece.

        Raises:
            ConfigError: There is no such file, its format is unknown, a folder would be read in
                part, or the source has no rows or no rows by number.
        """
        if isinstance(source, str | os.PathLike):
            source = [source]
        if not isinstance(source, list | tuple) or not all(
            isinstance(path, str | os.PathLike) for path in source
        ):
            return cls._of_dataset(source, rows_per_shard)
        paths = [as_file(path) for path in source]
        if not paths:
            raise ConfigError("the source is an empty list: no rows")
        if len(paths) == 1 and _is_saved(paths[0]):
            return cls._of_dataset(_load_saved(paths[0]), rows_per_shard)
        files = find_files(paths)
        stamps = tuple(map(stamp_of, files))
        if files == tuple(paths) and len(files) == 1 and _holds_list(files[0]):
            listed = cls._of_dataset(_read_list(files[0]), rows_per_shard)
            return attrs.evolve(listed, files=files, stamps=stamps)
        pieces = [
            attrs.evolve(piece, stamp=stamp)
            for file, stamp in zip(files, stamps, strict=True)
            for piece in _cut_file(file, rows_per_shard)
        ]
        if not pieces:
            raise ConfigError(f"{', '.join(map(str, paths))}: no rows")
        return cls(pieces=tuple(pieces), files=files, stamps=stamps)

    @classmethod
    def _of_dataset(cls, dataset: Any, rows_per_shard: int) -> Source:
        check_dataset(dataset)
        pieces = tuple(
            Piece(
                source="dataset",
                kind="dataset",
                first=first,
                rows=min(rows_per_shard, len(dataset) - first),
            )
            for first in range(0, len(dataset), rows_per_shard)
        )
        if not pieces:
            raise ConfigError("the dataset has no rows")
        return cls(pieces=pieces, dataset=dataset)

    def identity(self) -> tuple[dict[str, str], str]:
        """Hashes the source; takes the fingerprint of a `datasets.Dataset` instead of its rows.

        A source without pieces is a stream.

        Returns:
            The hash of each file or of the dataset, and why a changed dataset would go unnoticed,
            or "".

        Raises:
            ConfigError: A file was changed since its rows were counted.
        """
        if not self.pieces:
            return {"stream": "compared shard by shard"}, ""
        if self.files:
            hashes = {str(file): hash_file(file) for file in self.files}
            for file, stamp in zip(self.files, self.stamps, strict=True):
                check_unchanged(file, stamp)
            return hashes, ""
        rows = f"{type(self.dataset).__name__} of {len(self.dataset)} rows"
        fingerprint = getattr(self.dataset, "_fingerprint", None)
        if fingerprint is not None:
            return {"dataset": f"{rows}, {fingerprint}"}, ""
        try:
            return {"dataset": f"{rows}, {hash_rows(self.dataset)}"}, ""
        except UnknownContentError as error:
            return {"dataset": rows}, str(error)


def read_piece(piece: Piece, dataset: Any = None) -> Iterator[Any]:
    """Reads a piece.

    Yields:
        Each row, or a `ConversationError` if its line is no JSON.

    Raises:
        ConfigError: The file is damaged, or was changed since its rows were counted.
    """
    if piece.kind == "dataset":
        yield from (dataset[index] for index in range(piece.first, piece.first + piece.rows))
    elif piece.kind == "stream":
        yield from piece.examples
    else:
        rows = _parquet_rows(piece) if piece.kind == "parquet" else _json_rows(piece)
        yield from unchanged_rows(rows, as_file(piece.source), piece.stamp, piece.rows)


def _json_rows(piece: Piece) -> Iterator[Any]:
    with open_file(as_file(piece.source)) as file:
        file.seek(piece.start)
        lines = (line for line in file if line.strip())
        yield from map(parse_line, islice(lines, piece.rows))


def parse_line(line: bytes) -> Any:
    """Returns the row of a line of JSON, or a `ConversationError` if it is none."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return ConversationError(
            f"the row is no JSON: {error.msg} at character {error.pos}; write one JSON value per "
            "line"
        )
    except ValueError as error:  # its bytes are no text, or a number has too many digits
        return ConversationError(f"the row is no JSON: {error}")
    except RecursionError:
        return ConversationError("the row is nested too deeply to be read as JSON")


def row_label(piece: Piece, offset: int) -> str:
    """Returns the name of a row of a piece in messages."""
    return f"{Path(piece.source).name}, row {piece.first + offset}"


def import_parquet() -> Any:
    """Imports pyarrow's Parquet module.

    Raises:
        ConfigError: Pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "pyarrow, which reads and writes Parquet, is not installed; run pip install "
            "'vlmcollate[prepare]'"
        ) from error
    return parquet


def _cut_file(file: str | Path, rows_per_shard: int) -> Iterator[Piece]:
    if SUFFIXES[suffix_of(file)] == "parquet":
        try:
            with parquet_input(file) as data:
                total = import_parquet().ParquetFile(data).metadata.num_rows
        except (OSError, ValueError) as error:
            raise ConfigError(f"'{file}' is no complete Parquet file: {error}") from error
        for first in range(0, total, rows_per_shard):
            rows = min(rows_per_shard, total - first)
            yield Piece(source=str(file), kind="parquet", first=first, rows=rows)
        return
    starts = _line_starts(file) if isinstance(file, Path) else _starts_of_lines(file)
    for first in range(0, len(starts), rows_per_shard):
        yield Piece(
            source=str(file),
            kind="json lines",
            first=first,
            rows=min(rows_per_shard, len(starts) - first),
            start=starts[first],
        )


def _line_starts(file: Path) -> list[int]:
    """Returns the position of each line that is not blank."""
    if not file.stat().st_size:
        return []
    starts, position = [], 0
    with file.open("rb") as lines, mmap.mmap(lines.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:3] == b"\xef\xbb\xbf":
            position = 3
        while position < len(data):
            end = data.find(b"\n", position)
            end = len(data) if end < 0 else end
            if data[position:end].strip():
                starts.append(position)
            position = end + 1
    return starts


def _starts_of_lines(url: str) -> list[int]:
    """Returns the position of each line that is not blank, of a file in an object store."""
    starts, position = [], 0
    with open_file(url) as lines:
        for line in lines:
            text = line.removeprefix(b"\xef\xbb\xbf") if not position else line
            if text.strip():
                starts.append(position + len(line) - len(text))
            position += len(line)
    return starts


def _parquet_rows(piece: Piece) -> Iterator[Any]:
    reader = import_parquet()
    try:
        with parquet_input(as_file(piece.source)) as data:
            file = reader.ParquetFile(data, page_checksum_verification=True)
            yield from _rows_of_groups(file, piece)
    except (OSError, ValueError) as error:  # the bases of pyarrow's errors
        raise ConfigError(
            f"'{piece.source}' is damaged: {error}; write the file again, or prepare from another "
            "source"
        ) from error


def _rows_of_groups(file: Any, piece: Piece) -> Iterator[Any]:
    before, end = 0, piece.first + piece.rows
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        start, before = before, before + rows
        if before <= piece.first or start >= end:
            continue
        at = start
        for batch in file.iter_batches(batch_size=64, row_groups=[group]):
            low, high = max(piece.first - at, 0), min(end - at, len(batch))
            if low < high:
                yield from batch.slice(low, high - low).to_pylist()
            at += len(batch)
        if at != before:
            raise ValueError(f"row group {group} holds {at - start} rows, and declares {rows}")


def _is_saved(path: str | Path) -> bool:
    return isinstance(path, Path) and any((path / name).is_file() for name in _SAVED)


def _load_saved(folder: Any) -> Any:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ConfigError(
            f"'{folder}' was saved by `datasets`, which is not installed; run pip install datasets"
        ) from error
    return load_from_disk(str(folder))


def _holds_list(file: str | Path) -> bool:
    if suffix_of(file) != ".json":
        return False
    with open_file(file) as data:
        return data.read(4).removeprefix(b"\xef\xbb\xbf")[:1] == b"["


def _read_list(file: str | Path) -> list[Any]:
    try:
        with open_file(file) as data:
            rows = json.loads(data.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{file}' is no JSON: {error}; name JSON lines .jsonl") from error
    return list(rows)
