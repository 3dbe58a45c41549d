"""Sources of examples, cut into pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.data.dataset_checks import check_dataset
from vlmcollate.data.failing_rows import row_or_error
from vlmcollate.data.json_rows import holds_list, line_starts, parse_line, read_list
from vlmcollate.data.parquet_rows import count_rows, read_rows
from vlmcollate.data.source_changes import check_unchanged, stamp_of, unchanged_rows
from vlmcollate.data.source_files import as_file, open_file, suffix_of
from vlmcollate.data.source_folders import SUFFIXES, Kind, find_files
from vlmcollate.data.source_hash import UnknownContentError, hash_file, hash_rows
from vlmcollate.errors import ConfigError

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
        content: The hash of the whole file then, or "" if it was not taken.
    """

    source: str
    kind: Kind
    first: int
    rows: int
    start: int = 0
    examples: tuple[Any, ...] = ()
    digest: str = ""
    stamp: str = ""
    content: str = ""


@attrs.frozen(kw_only=True, eq=False)
class Source:
    """Examples in files of JSON lines or Parquet, or a `datasets.Dataset`.

    Attributes:
        pieces: The pieces, in order.
        files: The files that hold the examples.
        stamps: What the system kept about each file before it was read.
        contents: The hash of each file before its rows were counted; empty if none was taken.
        dataset: The dataset that holds the examples, or `None`.
    """

    pieces: tuple[Piece, ...] = ()
    files: tuple[str | Path, ...] = ()
    stamps: tuple[str, ...] = ()
    contents: tuple[str, ...] = ()
    dataset: Any = None

    @classmethod
    def of(cls, source: object, *, rows_per_shard: int, hashed: bool = True) -> Source:
        """Finds the files and the pieces of a source.

        Args:
            source: One or several paths of `.jsonl` or `.parquet` files or folders of them, or
                their URLs in object stores; a `.json` file with a list; a folder that
                `Dataset.save_to_disk` wrote; or a map-style dataset, such as a `datasets.Dataset`
                or a list.
            rows_per_shard: The maximum rows of a piece.
            hashed: Whether to hash the files, which `identity` needs.

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
        contents = tuple(map(hash_file, files)) if hashed else ()
        found = cls(files=files, stamps=stamps, contents=contents)
        if len(files) == 1 and files == tuple(paths) and holds_list(files[0]):
            listed = cls._of_dataset(read_list(files[0]), rows_per_shard)
            return attrs.evolve(found, pieces=listed.pieces, dataset=listed.dataset)
        known = zip(files, stamps, contents or [""] * len(files), strict=True)
        pieces = [
            attrs.evolve(piece, stamp=stamp, content=content)
            for file, stamp, content in known
            for piece in _cut_file(file, rows_per_shard)
        ]
        if not pieces:
            raise ConfigError(f"{', '.join(map(str, paths))}: no rows")
        return attrs.evolve(found, pieces=tuple(pieces))

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
            for file, stamp, content in zip(self.files, self.stamps, self.contents, strict=True):
                check_unchanged(file, stamp, content)
            return dict(zip(map(str, self.files), self.contents, strict=True)), ""
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
        Each row, or a `SampleError` if its line is no JSON, or if the dataset raised an error.

    Raises:
        ConfigError: The file is damaged, or was changed since its rows were counted.
        SourceError: The dataset raised an error that every other row would raise, too.
    """
    if piece.kind == "dataset":
        for index in range(piece.first, piece.first + piece.rows):
            yield row_or_error(dataset, index)
    elif piece.kind == "stream":
        yield from piece.examples
    else:
        file, count = as_file(piece.source), piece.rows
        is_parquet = piece.kind == "parquet"
        rows = read_rows(file, piece.first, count) if is_parquet else _lines_of(file, piece)
        yield from unchanged_rows(rows, file, piece.stamp, piece.content, count)


def _lines_of(file: str | Path, piece: Piece) -> Iterator[Any]:
    with open_file(file) as data:
        data.seek(piece.start)
        lines = (line for line in data if line.strip())
        yield from map(parse_line, islice(lines, piece.rows))


def row_label(piece: Piece, offset: int) -> str:
    """Returns the name of a row of a piece in messages."""
    return f"{Path(piece.source).name}, row {piece.first + offset}"


def _cut_file(file: str | Path, rows_per_shard: int) -> Iterator[Piece]:
    kind = SUFFIXES[suffix_of(file)]
    starts = [] if kind == "parquet" else line_starts(file)
    total = count_rows(file) if kind == "parquet" else len(starts)
    for first in range(0, total, rows_per_shard):
        yield Piece(
            source=str(file),
            kind=kind,
            first=first,
            rows=min(rows_per_shard, total - first),
            start=starts[first] if starts else 0,
        )


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
