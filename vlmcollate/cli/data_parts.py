"""The data of a command: the rows of one dataset, or of each source of a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from vlmcollate.cli.flags import in_flags
from vlmcollate.cli.option_values import value_of
from vlmcollate.cli.yaml_files import read_yaml
from vlmcollate.collator import BaseCollator
from vlmcollate.data.rows import Rows
from vlmcollate.data.source_files import as_file, suffix_of
from vlmcollate.errors import ConfigError, SampleError
from vlmcollate.mixture import Mixture
from vlmcollate.mixture.media_sizes import Sizes, with_sizes

_SUFFIXES = (".yaml", ".yml")


@attrs.frozen(kw_only=True, eq=False)
class DataPart:
    """Rows that one collator encodes.

    Attributes:
        source: The name of their source in a mixture, or "".
        weight: The weight of the source.
        collator: Encodes the rows.
        rows: The rows.
        sizes: The sizes of media that sets none.
    """

    source: str = ""
    weight: float = 1.0
    collator: BaseCollator
    rows: Rows
    sizes: Sizes = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def shown(self, message: str) -> str:
        """Returns the message of an error, with flags unless the options are those of a source."""
        return message if self.source else in_flags(message)

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yields each row after its number; a `SampleError` if it cannot be read."""
        for number, row in self.rows:
            yield number, self._sized(row) if self.sizes else row

    def _sized(self, row: Any) -> Any:
        if isinstance(row, SampleError):
            return row
        try:
            return with_sizes(self.collator.read(row), self.sizes)
        except SampleError as error:
            return error


def data_parts(collator: BaseCollator, data: str | Path, rows: str) -> list[DataPart]:
    """Finds the rows of a dataset, or of each source of a mixture.

    Args:
        collator: Encodes the rows, with the options of their source.
        data: A file or a folder, as for `Rows.of`, or a YAML file with `sources` by name, each with
            `data`, a path relative to the file, `weight` and options of its own.
        rows: A row or a range, as for `Rows.of`, of each source.

    Raises:
        ConfigError: The data cannot be read, or an option of a source is wrong.
    """
    if suffix_of(as_file(data)) not in _SUFFIXES:
        return [DataPart(collator=collator, rows=Rows.of(data, rows))]
    sources = _read_sources(Path(data))
    try:
        found = {name: Rows.of(given.pop("data"), rows) for name, given in sources.items()}
        weights = {name: given.pop("weight") for name, given in sources.items()}
        mixture = Mixture(
            {name: (range(len(found[name])), weights[name]) for name in sources},
            per_source=sources,
        )
        mixed = mixture.collator(collator)
    except ConfigError as error:
        raise ConfigError(f"{data}: {error}") from error
    return [
        DataPart(
            source=name,
            weight=mixture.sources[name].weight,
            collator=mixed.collators[name],
            rows=found[name],
            sizes=mixed.sizes[name],
        )
        for name in sources
    ]


def _read_sources(file: Path) -> dict[str, dict[str, Any]]:
    """Returns the data, the weight and the options of each source."""
    found = read_yaml(file, str(file))
    if found.keys() != {"sources"} or not isinstance(found["sources"], dict):
        raise ConfigError(
            f"{file} is wrong: found {found!r:.60}, expected 'sources' by name alone, such as "
            "{charts: {data: charts.jsonl, weight: 0.3}}"
        )
    sources = {}
    for name, given in found["sources"].items():
        if not isinstance(given, dict) or not {"data", "weight"} <= given.keys():
            raise ConfigError(
                f"{file}: source {name!r} is wrong: found {given!r:.60}, expected 'data' and "
                "'weight'"
            )
        if not isinstance(given["data"], str):
            raise ConfigError(
                f"{file}: the data of source {name!r} is wrong: found {given['data']!r:.60}, "
                "expected a path or a URL"
            )
        options = {k: value_of(v) if isinstance(v, str) else v for k, v in given.items()}
        path = as_file(given["data"])
        sources[name] = {**options, "data": file.parent / path if isinstance(path, Path) else path}
    return sources
