"""The files of rows that a path or a URL names, and those that it would leave out."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import attrs

from vlmcollate.data.source_files import files_below, suffix_of
from vlmcollate.errors import ConfigError

Kind = Literal["json lines", "parquet", "dataset", "stream"]
SUFFIXES: dict[str, Kind] = {
    ".jsonl": "json lines",
    ".ndjson": "json lines",
    ".json": "json lines",
    ".parquet": "parquet",
}
"""The format of a file by its suffix."""
_COMPRESSED = frozenset({".gz", ".bz2", ".zst", ".xz"})
_DATA = frozenset({*SUFFIXES, ".arrow", ".csv", ".tsv"})
_PLAN = "plan.json"
_PREPARED = re.compile(r"plan\.json|manifest\.json|rejected\.jsonl|\d{6,}\.arrow")
"""The files of a prepared folder, which its plan marks as one."""
_NO_ROWS = frozenset(
    {
        *("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"),
        *("config.json", "generation_config.json", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"),
        *("added_tokens.json", "chat_template.json", "processor_config.json"),
        *("preprocessor_config.json", "video_preprocessor_config.json"),
    }
)
"""Metadata of data sets, and files of models and processors."""
_NO_FOLDERS = frozenset({"__MACOSX", "_delta_log", "lost+found"})
_SHOWN = 3


@attrs.frozen
class Found:
    """The files that a path or a URL names.

    Attributes:
        place: The path or the URL.
        files: The files that are read, in order.
        others: Further files that seem to hold data, if the place is a folder.
    """

    place: str | Path
    files: tuple[str | Path, ...]
    others: tuple[str | Path, ...] = ()

    @classmethod
    def at(cls, place: str | Path) -> Found:
        """Finds the files.

        Raises:
            ConfigError: There is no such file, its suffix is another, or the folder holds no file
                of rows or cannot be listed.
        """
        found = _at_url(place) if isinstance(place, str) else _at_path(place)
        if not found.files and not found.others:
            raise ConfigError(f"'{place}' holds no {' or '.join(SUFFIXES)} files")
        return found


def find_files(places: Collection[str | Path]) -> tuple[str | Path, ...]:
    """Finds the files of rows of several paths and URLs.

    Raises:
        ConfigError: As for `Found.at`; a file is named twice; or a folder would be read in part.
    """
    found = [Found.at(place) for place in places]
    files = tuple(file for some in found for file in some.files)
    names = {_name(file) for file in files}
    if len(names) < len(files):
        raise ConfigError("the source names a file twice; name each file once")
    for some in found:
        left = [_shown(file, some.place) for file in some.others if _name(file) not in names]
        if left:
            raise _partial_error(some.place, left)
    return files


def _name(file: str | Path) -> str:
    return str(file if isinstance(file, str) else file.resolve())


def _shown(file: str | Path, folder: str | Path) -> str:
    return str(file)[len(str(folder)) :].lstrip("/\\")


def _partial_error(folder: str | Path, left: list[str]) -> ConfigError:
    shown = ", ".join(map(repr, left[:_SHOWN]))
    if len(left) == 1:
        what = f"1 file of data that is not read, {shown}"
    elif len(left) <= _SHOWN:
        what = f"{len(left)} files of data that are not read, {shown}"
    else:
        what = f"{len(left):,} files of data that are not read, such as {shown}"
    return ConfigError(
        f"the folder '{folder}' would be read in part: found {what}; expected "
        f"{', '.join(SUFFIXES)} files in the folder itself; name each file or subfolder to read, "
        "or move the others elsewhere; decompress or convert files with other suffixes first"
    )


def _at_path(path: Path) -> Found:
    if path.is_dir():
        own: list[str | Path] = []
        others: list[str | Path] = []
        for parent, names in _walk(path):
            for name, is_read in _data_in(names):
                file = parent / name
                is_own = is_read and parent == path and file.is_file()
                (own if is_own else others).append(file)
        return Found(path, tuple(own), tuple(others))
    if not path.is_file():
        raise ConfigError(f"there is no file '{path}'")
    _check_suffix(path)
    return Found(path, (path,))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and those below, each with the names of its files; links only once."""
    top = folder.resolve()
    seen = {top, *top.parents}
    for parent, below, names in os.walk(folder, followlinks=True, onerror=_refuse):
        below.sort()
        places = {name: Path(parent, name).resolve() for name in below if not _is_ignored(name)}
        below[:] = [name for name, place in places.items() if place not in seen]
        seen.update(places.values())
        yield Path(parent), names


def _refuse(error: OSError) -> None:
    raise ConfigError(
        f"'{error.filename}' cannot be listed: {error.strerror}; name each file to read"
    ) from error


def _at_url(url: str) -> Found:
    below = files_below(url)
    if below is None:
        raise ConfigError(f"there is no file '{url}'")
    if not below:
        _check_suffix(url)
        return Found(url, (url,))
    folders: dict[str, list[str]] = {}
    for name in below:
        parent, _, last = name.rpartition("/")
        folders.setdefault(parent, []).append(last)
    own: list[str | Path] = []
    others: list[str | Path] = []
    for parent in sorted(folders):
        if any(map(_is_ignored, parent.split("/"))):
            continue
        for name, is_read in _data_in(folders[parent]):
            file = "/".join([url.rstrip("/"), *filter(None, [parent]), name])
            (own if is_read and not parent else others).append(file)
    return Found(url, tuple(own), tuple(others))


def _data_in(names: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Yields the names of one folder that seem to be data, and whether they are read."""
    is_prepared = _PLAN in names
    for name in sorted(names):
        if name.startswith(".") or name in _NO_ROWS:
            continue
        if is_prepared and _PREPARED.fullmatch(name):
            continue
        suffix = suffix_of(name)
        if suffix in _DATA or (suffix in _COMPRESSED and suffix_of(name[: -len(suffix)]) in _DATA):
            yield name, suffix in SUFFIXES


def _is_ignored(folder: str) -> bool:
    return folder.startswith(".") or folder in _NO_FOLDERS


def _check_suffix(file: str | Path) -> None:
    suffix = suffix_of(file)
    if suffix in _COMPRESSED:
        raise ConfigError(
            f"'{file}' is compressed: found the suffix {suffix}, expected one of "
            f"{', '.join(SUFFIXES)}; decompress it"
        )
    if suffix not in SUFFIXES:
        raise ConfigError(
            f"'{file}' has the wrong suffix: expected one of {', '.join(SUFFIXES)}; convert or "
            "rename it"
        )
