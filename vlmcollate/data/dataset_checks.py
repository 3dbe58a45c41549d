"""Refusing objects that are no map-style dataset, with the call that makes one of them."""

from __future__ import annotations

from typing import Any

from vlmcollate.errors import ConfigError, SampleError
from vlmcollate.formats import read_example

_TABLES = {
    ("pyarrow", "Table"): "source.to_pylist()",
    ("pyarrow", "RecordBatch"): "source.to_pylist()",
    ("pandas", "DataFrame"): 'source.to_dict("records")',
    ("pandas", "Series"): "source.tolist()",
    ("polars", "DataFrame"): "source.to_dicts()",
}
"""The call that lists the rows of a table, by its library and class."""
_SHOWN = 5


def check_dataset(dataset: Any) -> None:
    """Refuses an object that has no rows by number.

    Raises:
        ConfigError: It has none.
    """
    for kind in type(dataset).__mro__:
        library = kind.__module__.partition(".")[0]
        call = _TABLES.get((library, kind.__name__))
        if call is not None:
            raise ConfigError(
                f"the source is wrong: found a {kind.__name__} of {library}, which has no rows by "
                f"number, expected a list of rows or a dataset; pass {call}, or write a Parquet "
                "file and pass its path"
            )
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ConfigError(
            f"the source is wrong: found {type(dataset).__name__}, expected paths, or a dataset "
            "with __len__ and __getitem__"
        )
    if hasattr(dataset, "keys"):
        raise _keyed_error(dataset)


def _keyed_error(dataset: Any) -> ConfigError:
    keys = list(dataset.keys())
    more = ["..."] * (len(keys) > _SHOWN)
    shown = ", ".join([*map(repr, keys[:_SHOWN]), *more])
    if _is_row(dataset):
        return ConfigError(
            f"the source is wrong: found one row, with the keys {shown}, expected rows by number; "
            "pass [source], a list of rows"
        )
    if keys and all(isinstance(key, str) for key in keys):
        splits = ", ".join([*keys[:_SHOWN], *more])
        return ConfigError(f"the source holds the splits {splits}; pass one of them")
    return ConfigError(
        f"the source is wrong: found a {type(dataset).__name__} with "
        f"{'the keys ' + shown if shown else 'no keys'}, expected rows by number; pass "
        "list(source.values()) if the values are the rows"
    )


def _is_row(dataset: Any) -> bool:
    try:
        read_example(dataset, on_unread="allow")
    except SampleError:
        return False
    return True
