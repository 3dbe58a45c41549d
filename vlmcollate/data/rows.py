"""Reading the rows of a dataset in a file or a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from vlmcollate.errors import ConfigError, ConversationError

_JSON_LINES = (".jsonl", ".ndjson", ".json")


def read_rows(
    path: str | Path, *, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Any]]:
    """Reads rows one after another.

    Args:
        path: A file of JSON lines (`.jsonl`, `.ndjson`) or JSON with a list, a Parquet file, or a
            folder that `datasets.Dataset.save_to_disk` wrote.
        start: The first row.
        stop: The row after the last, or `None` for all.

    Yields:
        The number of each row from 0 on, and the row: a dict as the dataset has it, or a
        `ConversationError` where a line is no JSON.

    Raises:
        ConfigError: There is no such file, or nothing that reads it.
    """
    file = Path(path)
    if not file.exists():
        raise ConfigError(f"there is no file or folder {str(file)!r} to read rows from")
    if file.is_dir():
        rows = _saved_dataset(file)
    elif file.suffix == ".parquet":
        rows = _parquet(file)
    elif file.suffix in _JSON_LINES:
        rows = _json(file)
    else:
        raise ConfigError(
            f"{file.name!r} is none of {', '.join(_JSON_LINES)}, .parquet or a folder that "
            "Dataset.save_to_disk wrote"
        )
    yield from islice(enumerate(rows), start, stop)


def _json(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig") as lines:
        first = lines.read(1)
        lines.seek(0)
        if file.suffix == ".json" and first == "[":
            yield from _json_list(file)
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                yield ConversationError(f"no JSON ({error})", where=f"{file.name}, line {number}")


def _json_list(file: Path) -> list[Any]:
    try:
        rows: list[Any] = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file.name} is no JSON: {error}") from error
    return rows


def _parquet(file: Path) -> Iterator[Any]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError("Parquet is read by pyarrow; run `pip install pyarrow`") from error
    try:
        with ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=64):
                yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise ConfigError(f"{file.name} is no Parquet file: {error}") from error


def _saved_dataset(folder: Path) -> Iterator[Any]:
    try:
        from datasets import load_from_disk
    except ImportError as error:
        raise ConfigError(
            "a saved dataset is read by `datasets`; run `pip install datasets`"
        ) from error
    try:
        found = load_from_disk(str(folder))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"{str(folder)!r} holds no saved dataset: {error}") from error
    if hasattr(found, "keys"):
        raise ConfigError(
            f"{str(folder)!r} holds the splits {', '.join(found)}; name one, such as "
            f"{str(folder / next(iter(found)))!r}"
        )
    yield from found


def row_range(text: str) -> tuple[int, int | None]:
    """Reads a range of rows.

    Args:
        text: A row such as `"3"`, or a range such as `"0:10"`, `"5:"` or `":5"`.

    Returns:
        The first row, and the row after the last or `None`.

    Raises:
        ConfigError: It is neither.

    Example:
        >>> row_range("3"), row_range("5:")
        ((3, 4), (5, None))
    """
    first, colon, last = text.partition(":")
    if not colon and first.isdecimal():
        return int(first), int(first) + 1
    if colon and all(part.isdecimal() or not part for part in (first, last)):
        return int(first or 0), int(last) if last else None
    raise ConfigError(f"rows must be a number or a range such as 0:10, not {text!r}")
