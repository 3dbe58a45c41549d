"""A file that changes while its rows are prepared is an error, and no shard holds other rows."""

from __future__ import annotations

import json
import os
import sys
import time

import attrs
import fsspec
import pytest

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset, source_changes, source_hash
from vlmcollate.data.rows import Rows
from vlmcollate.data.sources import Source, read_piece
from vlmcollate.testing import tiny_processor

ROWS, FEWER = 24, 9


def rows(count, word="w"):
    return [{"question": "Hi", "answer": f"{word}{k:02}"} for k in range(count)]


def lines(count, word="w"):
    return "".join(json.dumps(row) + "\n" for row in rows(count, word)).encode()


def table(count, word="w"):
    pa = pytest.importorskip("pyarrow", reason="needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    out = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows(count, word)), out, row_group_size=5)
    return out.getvalue().to_pybytes()


def replace_file(file, data):
    other = file.with_name("other")
    other.write_bytes(data)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


CHANGES = {
    "fewer rows": lambda file, write: file.write_bytes(write(FEWER)),
    "other rows": lambda file, write: file.write_bytes(write(ROWS, "x")),
    "more rows": lambda file, write: file.write_bytes(write(ROWS + 1)),
    "other rows, moved there": lambda file, write: replace_file(file, write(ROWS, "x")),
    "cut in a row": lambda file, write: os.truncate(file, len(write(ROWS)) * 2 // 3),
    "removed": lambda file, _: file.unlink(),
}
FORMATS = {"a.jsonl": lines, "a.parquet": table}


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


def prepare(source, out, collator, **options):
    return prepare_dataset(source, out, collator=collator, rows_per_shard=4, **options)


def shards_of(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.arrow"))}


def changes_once(out, change):
    done: list[bool] = []

    def on_progress(_):
        if not done and len(shards_of(out)) >= 2:
            done.append(True)
            change()

    return on_progress


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_changes_is_an_error(tmp_path, collator, name, change, on_error):
    file, write = tmp_path / name, FORMATS[name]
    file.write_bytes(write(ROWS))
    expected = prepare(file, tmp_path / "whole", collator)
    alter = changes_once(tmp_path / "out", lambda: CHANGES[change](file, write))
    with pytest.raises(ConfigError, match=rf"'.*{name}' was changed while .*prepare the dataset"):
        prepare(file, tmp_path / "out", collator, on_progress=alter, on_error=on_error)
    kept = shards_of(tmp_path / "out")
    assert len(kept) >= 2
    whole = shards_of(tmp_path / "whole")
    assert all(whole[shard] == data for shard, data in kept.items())
    file.write_bytes(write(ROWS))
    assert prepare(file, tmp_path / "out", collator) == expected
    assert shards_of(tmp_path / "out") == whole


@pytest.mark.parametrize("packing", [False, True])
def test_processes_notice_it_too(tmp_path, collator, packing):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(200))
    alter = changes_once(tmp_path / "out", lambda: file.write_bytes(lines(200, "x")))
    options = {"packing": packing, "max_length": 60}
    with pytest.raises(ConfigError, match="was changed while its rows were read"):
        prepare(file, tmp_path / "out", collator, on_progress=alter, num_proc=2, **options)
    kept = shards_of(tmp_path / "out")
    file.write_bytes(lines(200))
    assert prepare(file, tmp_path / "out", collator, **options).rows > 0
    prepare(file, tmp_path / "whole", collator, **options)
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")
    assert kept.items() <= shards_of(tmp_path / "whole").items()


@pytest.mark.parametrize("name", FORMATS)
def test_a_change_before_the_hash_is_noticed(tmp_path, name):
    file, write = tmp_path / name, FORMATS[name]
    file.write_bytes(write(ROWS))
    source = Source.of(file, rows_per_shard=4)
    time.sleep(0.02)  # the clock of a file system has steps
    file.write_bytes(write(ROWS, "x"))
    with pytest.raises(ConfigError, match="was changed while its rows were read"):
        source.identity()


def test_a_list_that_changes_before_its_hash_is_noticed(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(rows(3)))
    source = Source.of(file, rows_per_shard=4)
    file.write_text(json.dumps(rows(4)))
    with pytest.raises(ConfigError, match="was changed while its rows were read"):
        source.identity()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("removed", [False, True])
def test_a_file_in_a_store_that_changes_is_an_error(name, removed):
    memory, write = fsspec.filesystem("memory"), FORMATS[name]
    memory.pipe(f"/changes/{name}", write(ROWS))
    try:
        found = Rows.of(f"memory://changes/{name}")
        assert [row["answer"] for _, row in found] == [row["answer"] for row in rows(ROWS)]
        memory.rm("/changes", recursive=True)
        if not removed:
            memory.pipe(f"/changes/{name}", write(ROWS, "x"))
        with pytest.raises(ConfigError, match=rf"'memory://changes/{name}' was changed while"):
            list(found)
    finally:
        if memory.exists("/changes"):
            memory.rm("/changes", recursive=True)


def test_fewer_rows_than_were_counted_are_an_error(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(3))
    (piece,) = Source.of(file, rows_per_shard=4).pieces
    with pytest.raises(ConfigError, match=r"found 3, expected 4; prepare the dataset again"):
        list(read_piece(attrs.evolve(piece, rows=4)))


def test_a_file_that_is_cut_while_its_lines_are_counted_is_an_error(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(50_000))
    seen = []

    def trace(frame, event, _):
        if not frame.f_code.co_filename.endswith("json_rows.py"):
            return None
        seen.append(event)
        if len(seen) == 1000:
            os.truncate(file, 100)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        source = Source.of(file, rows_per_shard=50_000)
    finally:
        sys.settrace(before)
    assert source.pieces[0].rows < 50_000
    with pytest.raises(ConfigError, match="was changed while its rows were read"):
        source.identity()


def copy_over(file):
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    other.replace(file)


TOUCHES = {
    "a hard link": lambda file: file.with_name("link").hardlink_to(file),
    "other permissions": lambda file: file.chmod(0o444),
    "another time": lambda file: os.utime(file, (1, 1)),
    "the same bytes, moved there": copy_over,
    "the same bytes, written": lambda file: file.write_bytes(file.read_bytes()),
}


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_the_same_content_is_read_on(tmp_path, collator, monkeypatch, name, touch):
    file, write = tmp_path / name, FORMATS[name]
    file.write_bytes(write(ROWS))
    expected = prepare(file, tmp_path / "whole", collator)
    hashed = []

    def hash_file(found):
        hashed.append(found)
        return source_hash.hash_file(found)

    monkeypatch.setattr(source_changes, "hash_file", hash_file)
    alter = changes_once(tmp_path / "out", lambda: TOUCHES[touch](file))
    assert prepare(file, tmp_path / "out", collator, on_progress=alter) == expected
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")
    assert hashed == [file]


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_touch_before_the_first_row_is_no_change(tmp_path, touch):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(ROWS))
    source = Source.of(file, rows_per_shard=ROWS)
    before = source.identity()
    TOUCHES[touch](file)
    assert source.identity() == before
    assert [row for piece in source.pieces for row in read_piece(piece)] == rows(ROWS)


def test_a_touch_hides_no_later_change(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(ROWS))
    first, second, third, *_ = Source.of(file, rows_per_shard=4).pieces
    os.utime(file, (1, 1))
    assert list(read_piece(first)) == rows(4)
    replace_file(file, lines(ROWS, "x"))
    with pytest.raises(ConfigError, match="its content is another one now"):
        list(read_piece(second))
    replace_file(file, lines(ROWS))
    assert list(read_piece(third)) == rows(12)[8:]


def test_a_line_that_is_cut_for_a_moment_is_no_bad_row(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(ROWS))
    (piece,) = Source.of(file, rows_per_shard=ROWS).pieces
    whole = file.read_bytes()

    def cut():
        yield rows(1)[0]
        file.write_bytes(whole)  # as by a tool that writes the same once more
        os.utime(file, (1, 1))
        yield ValueError("cut")

    found = source_changes.unchanged_rows(cut(), file, piece.stamp, piece.content, ROWS)
    assert next(found) == rows(1)[0]
    with pytest.raises(ConfigError, match="it was written or replaced"):
        next(found)


def test_a_hard_link_is_no_change_for_rows_without_a_hash(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(ROWS))
    found = Rows.of(file)
    file.with_name("link").hardlink_to(file)
    assert [row for _, row in found] == rows(ROWS)
    os.utime(file, (1, 1))
    with pytest.raises(ConfigError, match="it was written or replaced"):
        list(found)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_bytes_in_a_store_are_no_change(name):
    memory, write = fsspec.filesystem("memory"), FORMATS[name]
    memory.pipe(f"/touched/{name}", write(ROWS))
    try:
        source = Source.of(f"memory://touched/{name}", rows_per_shard=4)
        first, second, *_ = source.pieces
        memory.pipe(f"/touched/{name}", write(ROWS))
        assert list(read_piece(first)) == rows(4)
        memory.pipe(f"/touched/{name}", write(ROWS, "x"))
        with pytest.raises(ConfigError, match="was changed while its rows were read: its "):
            list(read_piece(second))
    finally:
        memory.rm("/touched", recursive=True)
