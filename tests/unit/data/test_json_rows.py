"""Files of JSON are read as they are meant, or refused with a remedy."""

from __future__ import annotations

import json

import pytest

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.json_rows import parse_line
from vlmcollate.data.rows import Rows
from vlmcollate.errors import ConversationError
from vlmcollate.testing import tiny_processor

ROWS = [{"question": "Hi", "answer": f"yes {k}"} for k in range(3)]
TWICE = '{"question": "Hi", "answer": "first", "answer": "second"}'


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("before", ["", " ", "\n", "\r\n\t ", "\n" * 5000])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_may_begin_with_whitespace(tmp_path, mark, before, indent):
    file = tmp_path / "a.json"
    file.write_bytes((mark + before + json.dumps(ROWS, indent=indent) + "\n").encode())
    assert [row for _, row in Rows.of(file)] == ROWS


@pytest.mark.parametrize("before", ["", "\n \n"])
def test_lines_in_a_json_file_are_lines(tmp_path, before):
    file = tmp_path / "a.json"
    file.write_text(before + "\n".join(map(json.dumps, ROWS)))
    assert [row for _, row in Rows.of(file)] == ROWS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_another_encoding_is_refused(tmp_path, name, encoding):
    file = tmp_path / name
    file.write_bytes(json.dumps(ROWS).encode(encoding))
    with pytest.raises(ConfigError, match=r'a.json.* is no UTF-8: .*; write it with encoding="utf'):
        Rows.of(file)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b" \n"])
def test_an_empty_file_has_no_rows(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match="no rows"):
        Rows.of(tmp_path / name)


def test_a_line_of_other_bytes_than_text_is_no_row():
    encoded = json.dumps({"answer": "中"}, ensure_ascii=False).encode("utf-16-be")
    for line in (encoded, b'{"a": "\xed\xa0\x80"}', b'\xff\xfe{"a": 1}'):
        assert isinstance(parse_line(line), ConversationError)
    assert parse_line(b'\xef\xbb\xbf{"a": "\xe4\xb8\xad"}\r\n') == {"a": "中"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_row_with_a_key_twice_is_rejected(tmp_path, name):
    first, last = json.dumps(ROWS[0]), json.dumps(ROWS[2])
    lines = f"{first}\n{TWICE}\n{last}"
    (tmp_path / name).write_text(lines if name == "a.jsonl" else f"[{first}, {TWICE}, {last}]")
    collator = collator_for(tiny_processor())
    with pytest.raises(ConversationError, match=r"row 1: the row is ambiguous: .*'answer' twice"):
        prepare_dataset(tmp_path / name, tmp_path / "raised", collator=collator)
    out = tmp_path / "out"
    manifest = prepare_dataset(tmp_path / name, out, collator=collator, on_error="skip")
    assert (manifest.rows, dict(manifest.dropped)) == (2, {"ConversationError": 1})
    (entry,) = map(json.loads, (out / "rejected.jsonl").read_text().splitlines())
    assert (entry["row"], entry["remedy"]) == (1, "keep one of its values")


def test_json_in_a_column_is_checked_too():
    collator = collator_for(tiny_processor())
    messages = '[{"role": "user", "content": "a"}, {"role": "assistant", "role": "x"}]'
    with pytest.raises(ConversationError, match=r"messages: is ambiguous JSON: .*'role' twice"):
        collator.encode({"messages": messages})


def test_two_columns_of_one_name_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    text = pa.array(["a"])
    inner = pa.StructArray.from_arrays([text, text, text], names=["x", "y", "y"])
    listed = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), inner)
    keyed = pa.MapArray.from_arrays(pa.array([0, 1], pa.int32()), text, inner)
    for columns, names, found in (
        ([text, text, text], ["q", "r", "q"], "q"),
        ([text, inner], ["q", "m"], "m.y"),
        ([text, listed], ["q", "m"], "m.y"),
        ([text, keyed], ["q", "m"], "m.y"),
    ):
        parquet.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=f"is ambiguous: found two columns '{found}'"):
            Rows.of(tmp_path / "a.parquet")
    inner = pa.StructArray.from_arrays([text, text], names=["q", "m"])
    parquet.write_table(pa.table({"q": text, "m": inner, "n": inner}), tmp_path / "a.parquet")
    assert len(Rows.of(tmp_path / "a.parquet")) == 1


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("before", ["", "\n"])
def test_another_encoding_is_refused_among_several_files(tmp_path, name, encoding, before):
    (tmp_path / "0.jsonl").write_text(json.dumps(ROWS[0]))
    (tmp_path / name).write_bytes((before + json.dumps(ROWS[1])).encode(encoding))
    with pytest.raises(ConfigError, match=r'a.json.* is no UTF-8: .*; write it with encoding="utf'):
        Rows.of(tmp_path)


def test_a_file_of_lines_is_opened_once_to_count_them(tmp_path, monkeypatch):
    for number in range(2):
        (tmp_path / f"{number}.json").write_text(json.dumps(ROWS[0]))
    opened = []

    def open_file(file):
        opened.append(file.name)
        return file.open("rb")

    monkeypatch.setattr("vlmcollate.data.json_rows.open_file", open_file)
    Rows.of(tmp_path)
    assert sorted(opened) == ["0.json", "1.json"]
