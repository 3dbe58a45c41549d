"""Rows of files against what was written to them."""

from __future__ import annotations

import json

import pyarrow
import pytest
from pyarrow import parquet

from vlmcollate import ConfigError
from vlmcollate.data.rows import Rows
from vlmcollate.errors import ConversationError

ROWS = [{"messages": [{"role": "user", "content": f"{i} ü"}]} for i in range(5)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
def test_json_lines(tmp_path, name):
    (tmp_path / name).write_text("\n\n".join(map(json.dumps, ROWS)), "utf-8")
    assert list(Rows.of(tmp_path / name)) == list(enumerate(ROWS))
    assert list(Rows.of(tmp_path / name, "1:3")) == [(1, ROWS[1]), (2, ROWS[2])]


def test_a_list_in_json(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ROWS), "utf-8")
    assert [row for _, row in Rows.of(tmp_path / "a.json")] == ROWS
    (tmp_path / "a.json").write_text("[1,", "utf-8")
    with pytest.raises(ConfigError, match="is no JSON"):
        list(Rows.of(tmp_path / "a.json"))


def test_a_broken_line_is_an_error_and_the_others_are_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 3}\n', "utf-8")
    (_, first), (_, broken), (_, last) = Rows.of(tmp_path / "a.jsonl")
    assert (first, last) == ({"a": 1}, {"a": 3})
    assert isinstance(broken, ConversationError)
    assert str(broken).startswith("the row is no JSON: ")


def test_a_line_that_is_nested_too_deeply_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + '\n{"a": 2}\n')
    (_, deep), (_, last) = Rows.of(tmp_path / "a.jsonl")
    assert isinstance(deep, ConversationError)
    assert last == {"a": 2}


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(Rows.of(tmp_path / "a.parquet", "3:")) == list(enumerate(ROWS))[3:]
    (tmp_path / "b.parquet").write_text("no parquet")
    with pytest.raises(ConfigError, match=r"b\.parquet' is no complete Parquet file"):
        list(Rows.of(tmp_path / "b.parquet"))


def test_a_saved_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one")
    assert [row for _, row in Rows.of(tmp_path / "one", ":2")] == ROWS[:2]
    datasets.DatasetDict(train=saved).save_to_disk(tmp_path / "splits")
    with pytest.raises(ConfigError, match="holds the splits train"):
        list(Rows.of(tmp_path / "splits"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no \.jsonl"):
        list(Rows.of(tmp_path / "empty"))


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        list(Rows.of(tmp_path / "missing.jsonl"))
    (tmp_path / "a.csv").touch()
    with pytest.raises(ConfigError, match=r"a\.csv' has the wrong suffix"):
        list(Rows.of(tmp_path / "a.csv"))


RANGES = ["0", "2:4", ":3", "1:", "-3:", ":-2", "-2", "-4:-2", "0:99", "-99:2", "4:99", ":"]


@pytest.mark.parametrize("text", RANGES)
def test_a_range_is_a_slice(tmp_path, text):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    found = Rows.of(tmp_path / "a.jsonl", text)
    numbers = list(range(len(ROWS)))
    parts = [int(part) if part else None for part in text.split(":")]
    expected = numbers[slice(*parts)] if ":" in text else [numbers[int(text)]]
    assert [number for number, _ in found] == expected
    assert [row for _, row in found] == [ROWS[number] for number in expected]
    assert len(found) == len(expected)


def test_rows_that_do_not_exist_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, ROWS)), "utf-8")
    for text in ("", "a", "1:2:3", "1.5", "٣"):
        with pytest.raises(ConfigError, match=r"rows is wrong: found .*, expected a number"):
            Rows.of(tmp_path / "a.jsonl", text)
    for text in ("5", "-6", "7:9", "3:1", ":0", "99:"):
        with pytest.raises(ConfigError, match=f"no row in '{text}': found 5 rows"):
            Rows.of(tmp_path / "a.jsonl", text)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    """With checksums of its pages, no flipped bit of a page is read as data."""
    whole = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS * 50), whole, write_page_checksum=True)
    data, damaged = whole.read_bytes(), tmp_path / "b.parquet"
    expected = list(Rows.of(whole))
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # it has no checksum
    for at in range(4, footer, footer // 97):
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            assert list(Rows.of(damaged)) == expected
        except ConfigError as error:
            assert "b.parquet" in str(error)


def test_rows_that_a_parquet_file_declares_and_lacks_are_missed(tmp_path, monkeypatch):
    """Pyarrow 17 drops rows of some damaged pages in silence."""
    whole = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS * 50), whole)
    read = parquet.ParquetFile.iter_batches

    def without_the_last(*args, **options):
        *batches, last = read(*args, **options)
        return iter([*batches, last.slice(1)])

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", without_the_last)
    with pytest.raises(ConfigError, match=r"damaged: row group 0 holds 249 rows, and declares 250"):
        list(Rows.of(whole))
