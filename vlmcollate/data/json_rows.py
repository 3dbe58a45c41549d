"""Rows in files of JSON: a value per line, or one list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vlmcollate.data.source_files import open_file, suffix_of
from vlmcollate.errors import ConfigError, ConversationError
from vlmcollate.formats.strict_json import RepeatedKeyError, parse_json, parse_rows

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_HEAD = 4096
_MARK = 4
"""The bytes at the start of a file that show UTF-16 and UTF-32."""


def parse_line(line: bytes) -> Any:
    """Returns the row of a line of JSON, or a `ConversationError` if it is none."""
    try:
        return parse_json(line.decode().removeprefix("\ufeff"))
    except RepeatedKeyError as error:
        return _repeated(error)
    except json.JSONDecodeError as error:
        return ConversationError(
            f"the row is no JSON: {error.msg} at character {error.pos}; write one JSON value per "
            "line"
        )
    except ValueError as error:  # its bytes are no text, or a number has too many digits
        return ConversationError(f"the row is no JSON: {error}")
    except RecursionError:
        return ConversationError("the row is nested too deeply to be read as JSON")


def holds_list(file: str | Path) -> bool:
    """Whether a file holds one list of JSON; opens only a file whose name ends in `.json`.

    Raises:
        ConfigError: The file is no UTF-8.
    """
    return suffix_of(file) == ".json" and _first_byte(file) == b"["


def read_list(file: str | Path) -> list[Any]:
    """Reads the list of a file, each row a value or a `ConversationError` if it has a key twice.

    Raises:
        ConfigError: The file is no JSON.
    """
    try:
        with open_file(file) as data:
            rows = parse_rows(data.read().removeprefix(_BOM).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{file}' is no JSON: {error}; name JSON lines .jsonl") from error
    return [_repeated(row) if isinstance(row, RepeatedKeyError) else row for row in rows]


def line_starts(file: str | Path) -> list[int]:
    """Returns the position of each line that is not blank.

    Raises:
        ConfigError: The file is no UTF-8.
    """
    starts, position, head = [], 0, b""
    with open_file(file) as lines:  # a mapped file that is cut would end the process
        for line in lines:
            if position < _MARK:
                head += line[:_MARK]
                _check_utf8(file, head)
            text = line.removeprefix(_BOM) if not position else line
            if text.strip():
                starts.append(position + len(line) - len(text))
            position += len(line)
    return starts


def _repeated(error: RepeatedKeyError) -> ConversationError:
    return ConversationError(f"the row is ambiguous: {error}; keep one of its values")


def _first_byte(file: str | Path) -> bytes:
    """Returns the first byte behind a mark of the encoding and whitespace, or none."""
    with open_file(file) as data:
        head = data.read(_HEAD)
        _check_utf8(file, head)
        head = head.removeprefix(_BOM)
        while head and not head.strip(_SPACE):
            head = data.read(_HEAD)
    return head.lstrip(_SPACE)[:1]


def _check_utf8(file: str | Path, head: bytes) -> None:
    mark = head[:_MARK]
    if mark[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in mark:
        raise ConfigError(
            f"'{file}' is no UTF-8: found the first bytes {mark!r}, as of UTF-16 or UTF-32, "
            'expected UTF-8; write it with encoding="utf-8"'
        )
