"""A source that was changed at any place has another hash."""

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
from vlmcollate.data.source_hash import UnknownContentError, hash_file, hash_rows
from vlmcollate.testing import tiny_processor


def image(colour: str, mode: str = "RGB") -> Image.Image:
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
    *(image("red"), image("blue"), image("red", "RGBA"), image("red", "P")),
    *(image("blue", "P"), Custom(1), Custom(2), np.datetime64(1, "s")),
]


def test_no_two_values_have_the_same_hash() -> None:
    digests = {hash_rows([value]) for value in VALUES}
    assert len(digests) == len(VALUES)
    assert [hash_rows([copy.deepcopy(value)]) for value in VALUES] == [
        hash_rows([value]) for value in VALUES
    ]
    assert hash_rows([1, [2]]) != hash_rows([[1, 2]])


def test_the_whole_file_counts(tmp_path: Path) -> None:
    data = bytearray(5 << 20)
    (tmp_path / "a").write_bytes(data)
    data[len(data) // 2] = 1
    (tmp_path / "b").write_bytes(data)
    assert hash_file(tmp_path / "a") != hash_file(tmp_path / "b")


def test_another_list_is_another_source(tmp_path: Path) -> None:
    def chat(answer: str) -> Any:
        return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]

    collator = collator_for(tiny_processor())
    prepare_dataset([chat("one"), chat("two")], tmp_path, collator=collator)
    prepare_dataset([chat("one"), chat("two")], tmp_path, collator=collator)
    with pytest.raises(ConfigError, match="begun with another source: dataset: list of 2 rows"):
        prepare_dataset([chat("one"), chat("ten")], tmp_path, collator=collator)


def test_rows_that_cannot_be_hashed_are_not_resumed(tmp_path: Path) -> None:
    rows: list[Any] = [
        {
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}],
            "extra": lambda: None,
        }
    ]
    with pytest.raises(UnknownContentError, match="row 0 holds a function"):
        hash_rows(rows)
    collator = collator_for(tiny_processor())
    assert prepare_dataset(rows, tmp_path, collator=collator).rows == 1
    with pytest.raises(
        ConfigError, match="may be of other rows: row 0 holds a function, whose content"
    ):
        prepare_dataset(rows, tmp_path, collator=collator)
