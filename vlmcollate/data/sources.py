"""Where the examples that are prepared come from, cut into pieces."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from vlmcollate.data.source_hash import UnknownContentError, file_digest, rows_digest
from vlmcollate.errors import ConfigError, ConversationError

Kind = Literal["json lines", "parquet", "dataset"]
_SUFFIXES: dict[str, Kind] = {
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json lines",
    ".parquet": "parquet",
}
_SAVED = ("dataset_info.json", "dataset_dict.json")


@attrs.frozen(kw_only=True)
class Piece:
    """Rows of a source that are prepared in one go.

    Attributes:
        source: The file, or what stands for a dataset in memory.
        kind: How it is read.
        first: The number of its first row in the source.
        rows: How many rows it has.
        start: Its first byte, in JSON lines.
    """

    source: str
    kind: Kind
    first: int
    rows: int
    start: int = 0


@attrs.frozen(kw_only=True, eq=False)
class Source:
    """Examples in files of JSON lines or Parquet, or a `datasets.Dataset`.

    Attributes:
        pieces: The pieces, in order.
        files: The files in which the examples are.
        dataset: The dataset, where the examples are in one.
    """

    pieces: tuple[Piece, ...]
    files: tuple[Path, ...] = ()
    dataset: Any = None

    @classmethod
    def of(cls, source: object, *, rows_per_shard: int) -> Source:
        """Looks at a source.

        Args:
            source: A path, or several, of `.jsonl` or `.parquet` files or folders of them; a
                `.json` file with a list; a folder that `Dataset.save_to_disk` wrote; or
                a map-style dataset, such as a `datasets.Dataset` or a list.
            rows_per_shard: The most rows of a piece.

        Raises:
            ConfigError: There is no such file, or it is of no kind that is read.
        """
        if isinstance(source, str | os.PathLike):
            source = [source]
        if not isinstance(source, list | tuple) or not all(
            isinstance(path, str | os.PathLike) for path in source
        ):
            return cls._of_dataset(source, rows_per_shard)
        paths = [Path(path) for path in source]
        if not paths:
            raise ConfigError("the source is an empty list: no rows")
        if len(paths) == 1 and any((paths[0] / name).is_file() for name in _SAVED):
            return cls._of_dataset(_saved(paths[0]), rows_per_shard)
        if len(paths) == 1 and _is_list(paths[0]):
            listed = cls._of_dataset(_listed(paths[0]), rows_per_shard)
            return attrs.evolve(listed, files=(paths[0],))
        files = [file for path in paths for file in _files(path)]
        if len({str(file.resolve()) for file in files}) < len(files):
            raise ConfigError("a file is named twice; name each once")
        pieces = [piece for file in files for piece in _pieces(file, rows_per_shard)]
        if not pieces:
            raise ConfigError(f"{', '.join(map(str, paths))}: no rows")
        return cls(pieces=tuple(pieces), files=tuple(files))

    @classmethod
    def _of_dataset(cls, dataset: Any, rows_per_shard: int) -> Source:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise ConfigError(
                f"the source is {type(dataset).__name__}, expected paths, or a dataset with "
                "__len__ and __getitem__"
            )
        if hasattr(dataset, "keys"):
            raise ConfigError(f"the source holds the splits {', '.join(dataset)}; pass one of them")
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
        """Reads the whole source once, unless a `datasets.Dataset` knows itself.

        Returns:
            What each file or the dataset is known by; and why a changed dataset would go unnoticed,
            or "".
        """
        if self.files:
            return {str(file): file_digest(file) for file in self.files}, ""
        rows = f"{type(self.dataset).__name__} of {len(self.dataset)} rows"
        fingerprint = getattr(self.dataset, "_fingerprint", None)
        if fingerprint is not None:
            return {"dataset": f"{rows}, {fingerprint}"}, ""
        try:
            return {"dataset": f"{rows}, {rows_digest(self.dataset)}"}, ""
        except UnknownContentError as error:
            return {"dataset": rows}, str(error)


def rows_of(piece: Piece, dataset: Any = None) -> Iterator[Any]:
    """Reads a piece.

    Yields:
        Each row, or a `ConversationError` where a line is no JSON.
    """
    if piece.kind == "dataset":
        yield from (dataset[index] for index in range(piece.first, piece.first + piece.rows))
    elif piece.kind == "parquet":
        yield from _parquet_rows(piece)
    else:
        with Path(piece.source).open("rb") as file:
            file.seek(piece.start)
            left = piece.rows
            while left:
                line = file.readline()
                if not line.strip():
                    continue
                left -= 1
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    yield ConversationError(
                        f"the row is no JSON: {error.msg} at character {error.pos}; write one JSON "
                        "value a line"
                    )
                except ValueError as error:  # its bytes are no text, or a number has no end
                    yield ConversationError(f"the row is no JSON: {error}")
                except RecursionError:
                    yield ConversationError("the row is nested too deeply to be read as JSON")


def place_of(piece: Piece, offset: int) -> str:
    """What to call a row of a piece in messages."""
    return f"{Path(piece.source).name}, row {piece.first + offset}"


def parquet() -> Any:
    """Pyarrow's Parquet module.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet is read and written by pyarrow; run pip install 'vlmcollate[prepare]'"
        ) from error
    return parquet


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
        if not found:
            raise ConfigError(f"'{path}' holds no {' or '.join(_SUFFIXES)} files")
        return found
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'")
    if path.suffix not in _SUFFIXES:
        raise ConfigError(f"'{path}' is none of {', '.join(_SUFFIXES)}; convert or rename it")
    return [path]


def _pieces(file: Path, rows_per_shard: int) -> Iterator[Piece]:
    if _SUFFIXES[file.suffix] == "parquet":
        try:
            total = parquet().ParquetFile(file).metadata.num_rows
        except (OSError, ValueError) as error:
            raise ConfigError(f"'{file}' is no whole Parquet file: {error}") from error
        for first in range(0, total, rows_per_shard):
            rows = min(rows_per_shard, total - first)
            yield Piece(source=str(file), kind="parquet", first=first, rows=rows)
        return
    starts = _line_starts(file)
    for first in range(0, len(starts), rows_per_shard):
        yield Piece(
            source=str(file),
            kind="json lines",
            first=first,
            rows=min(rows_per_shard, len(starts) - first),
            start=starts[first],
        )


def _line_starts(file: Path) -> list[int]:
    """Where each line that is not blank begins."""
    if not file.stat().st_size:
        return []
    starts, at = [], 0
    with file.open("rb") as lines, mmap.mmap(lines.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:3] == b"\xef\xbb\xbf":
            at = 3
        while at < len(data):
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            if data[at:end].strip():
                starts.append(at)
            at = end + 1
    return starts


def _parquet_rows(piece: Piece) -> Iterator[Any]:
    reader = parquet()
    try:
        file = reader.ParquetFile(piece.source, page_checksum_verification=True)
        yield from _rows_of_groups(file, piece)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        raise ConfigError(
            f"'{piece.source}' is damaged: {error}; write the file again, or prepare from another"
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


def _saved(folder: Path) -> Any:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ConfigError(
            f"'{folder}' was saved by `datasets`, which is not installed; run pip install datasets"
        ) from error
    return load_from_disk(str(folder))


def _is_list(file: Path) -> bool:
    if file.suffix != ".json" or not file.is_file():
        return False
    with file.open(encoding="utf-8-sig", errors="replace") as text:
        return text.read(1) == "["


def _listed(file: Path) -> list[Any]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{file}' is no JSON: {error}; name JSON lines .jsonl") from error
    return list(rows)
