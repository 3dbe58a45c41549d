"""A changed source is another source, wherever it was changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.source_hash import UnknownContentError, file_digest, rows_digest
from vlmcollate.testing import tiny_processor


def picture(colour: str, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (2, 3), colour).convert(mode)


class Custom:
    def __init__(self, value: int) -> None:
        self.value = value


VALUES: list[Any] = [
    *(None, True, False, 0, 1, 10**5000, 10**5000 + 1, 0.0, -0.0, 1.0, float("inf"), "", "1", "a"),
    *("\ud800", b"", b"1", b"x" * 5000 + b"1", b"x" * 5000 + b"2", [], {}, [[]], [1], [[1]]),
    *([1, 2], ["12"], {"a": 1}, {"a": "1"}, {"a": 1, "b": 2}, ["a", "b"], ["ab"], ["ab", ""]),
    *(np.zeros(2), np.zeros(2, np.float32), np.zeros((2, 1)), np.ones(2), np.array("a")),
    *(np.array(["a", 3], object), torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
    *(torch.zeros(2, 1), torch.tensor(True), torch.ones(2)),
    *(picture("red"), picture("blue"), picture("red", "RGBA"), picture("red", "P")),
    *(picture("blue", "P"), Custom(1), Custom(2), np.datetime64(1, "s")),
]


def test_no_two_values_are_taken_for_one_another() -> None:
    digests = {rows_digest([value]) for value in VALUES}
    assert len(digests) == len(VALUES)
    assert [rows_digest([copy.deepcopy(value)]) for value in VALUES] == [
        rows_digest([value]) for value in VALUES
    ]
    assert rows_digest([1, [2]]) != rows_digest([[1, 2]])


def test_the_whole_file_counts(tmp_path: Path) -> None:
    data = bytearray(5 << 20)
    (tmp_path / "a").write_bytes(data)
    data[len(data) // 2] = 1
    (tmp_path / "b").write_bytes(data)
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")


def test_another_list_is_another_source(tmp_path: Path) -> None:
    def chat(answer: str) -> Any:
        return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]

    collator = collator_for(tiny_processor())
    prepare_dataset([chat("one"), chat("two")], tmp_path, collator=collator)
    prepare_dataset([chat("one"), chat("two")], tmp_path, collator=collator)
    with pytest.raises(ConfigError, match="begun with another source: dataset: list of 2 rows"):
        prepare_dataset([chat("one"), chat("ten")], tmp_path, collator=collator)


def test_what_does_not_tell_its_content_is_not_gone_on_with(tmp_path: Path) -> None:
    rows: list[Any] = [
        {
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}],
            "extra": lambda: None,
        }
    ]
    with pytest.raises(UnknownContentError, match="row 0 holds a function"):
        rows_digest(rows)
    collator = collator_for(tiny_processor())
    assert prepare_dataset(rows, tmp_path, collator=collator).rows == 1
    with pytest.raises(ConfigError, match="is not known: row 0 holds a function, which does not"):
        prepare_dataset(rows, tmp_path, collator=collator)
