"""Rows in Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vlmcollate.data.source_files import parquet_input
from vlmcollate.errors import ConfigError


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


def count_rows(file: str | Path) -> int:
    """Returns the number of rows of a Parquet file.

    Raises:
        ConfigError: The file is incomplete, or has two columns of one name.
    """
    try:
        with parquet_input(file) as data:
            opened = import_parquet().ParquetFile(data)
            total, schema = int(opened.metadata.num_rows), opened.schema_arrow
    except (OSError, ValueError) as error:
        raise ConfigError(f"'{file}' is no complete Parquet file: {error}") from error
    if (name := _repeated_name(schema)) is not None:
        raise ConfigError(
            f"'{file}' is ambiguous: found two columns {name!r}, expected each name once; rename "
            "or drop one of them"
        )
    return total


def read_rows(file: str | Path, first: int, rows: int) -> Iterator[Any]:
    """Reads consecutive rows of a Parquet file.

    Args:
        file: The file.
        first: The number of the first row.
        rows: The number of rows.

    Raises:
        ConfigError: The file is damaged.
    """
    reader = import_parquet()
    try:
        with parquet_input(file) as data:
            opened = reader.ParquetFile(data, page_checksum_verification=True)
            yield from _rows_of_groups(opened, first, first + rows)
    except (OSError, ValueError) as error:  # the bases of pyarrow's errors
        raise ConfigError(
            f"'{file}' is damaged: {error}; write the file again, or prepare from another source"
        ) from error


def _rows_of_groups(file: Any, first: int, end: int) -> Iterator[Any]:
    before = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        start, before = before, before + rows
        if before <= first or start >= end:
            continue
        at = start
        for batch in file.iter_batches(batch_size=64, row_groups=[group]):
            low, high = max(first - at, 0), min(end - at, len(batch))
            if low < high:
                yield from batch.slice(low, high - low).to_pylist()
            at += len(batch)
        if at != before:
            raise ValueError(f"row group {group} holds {at - start} rows, and declares {rows}")


def _repeated_name(fields: Iterable[Any]) -> str | None:
    """Returns the path of a name that two fields have, or `None`."""
    seen = set()
    for field in fields:
        inner = _repeated_name(_fields_of(field.type))
        if field.name in seen or inner is not None:
            return str(field.name) if inner is None else f"{field.name}.{inner}"
        seen.add(field.name)
    return None


def _fields_of(kind: Any) -> list[Any]:
    """Returns the fields of a struct, and those of a list's or a map's values."""
    from pyarrow import types

    if types.is_struct(kind):
        return [kind.field(place) for place in range(kind.num_fields)]
    of_values = getattr(kind, "value_field", None) or getattr(kind, "item_field", None)
    return [] if of_values is None else _fields_of(of_values.type)
