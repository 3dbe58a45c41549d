"""The list of rejected rows agrees with the counts, whatever happens in between."""

from __future__ import annotations

import json

import pytest

from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.rejected import rejection
from vlmcollate.errors import MediaError, SampleTooLongError
from vlmcollate.testing import tiny_processor

ROWS = 24
BAD = {3: "{not json", 4: '{"messages": []}', 11: "3", 12: "[]", 23: "{not json \ud800 ü"}


@pytest.fixture
def collator():
    return collator_for(tiny_processor())


@pytest.fixture
def source(tmp_path):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    lines = [BAD.get(number, json.dumps(chat)) for number in range(ROWS)]
    lines[7] = json.dumps([chat[0], {"role": "assistant", "content": "Yes, yes. " * 40}])
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(lines), "utf-8", "surrogatepass")
    return file


def prepared(source, out, collator, **options):
    return prepare_dataset(
        source,
        out,
        collator=collator_for(collator.processor, max_length=60, on_overlong="drop"),
        on_error="skip",
        rows_per_shard=5,
        **options,
    )


def rejected(folder):
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("packing", [False, True])
def test_each_rejected_row_has_its_number_reason_and_remedy(tmp_path, source, collator, packing):
    manifest = prepared(source, tmp_path / "out", collator, packing=packing)
    entries = rejected(tmp_path / "out")
    assert [entry["row"] for entry in entries] == [3, 4, 7, 11, 12, 23]
    assert {entry["source"] for entry in entries} == {str(source)}
    assert all(entry["reason"] and entry["remedy"] for entry in entries)
    assert entries[0]["reason"].startswith("the row is no JSON: ")
    assert entries[0]["remedy"] == "write one JSON value per line"
    assert entries[2]["error"] == "SampleTooLongError"
    assert entries[2]["reason"].endswith("longer than max_length=60")
    names = [entry["error"] for entry in entries]
    assert {name: names.count(name) for name in names} == manifest.dropped


@pytest.mark.parametrize("num_proc", [1, 2])
@pytest.mark.parametrize("left", [b"", b'{"source": "chats.jsonl", "ro', None])
def test_a_resumed_run_neither_loses_nor_doubles_entries(
    tmp_path, source, collator, left, num_proc
):
    whole, out = tmp_path / "whole", tmp_path / "out"
    prepared(source, whole, collator)
    prepared(source, out, collator)
    for name in ("manifest.json", "000000.arrow", "000002.arrow"):
        (out / name).unlink()
    before = (out / "rejected.jsonl").read_bytes()  # and then, it may have died anywhere
    (out / "rejected.jsonl").write_bytes(before if left is None else before[:200] + left)
    prepared(source, out, collator, num_proc=num_proc)
    assert files_of(out) == files_of(whole)
    prepared(source, out, collator)
    assert files_of(out) == files_of(whole)


def test_the_list_is_up_to_date_when_an_error_ends_the_run(tmp_path, source, collator):
    class Stopped(Exception):  # noqa: N818  # as of someone who stops the run
        pass

    def stop(progress):
        if progress.done >= 15:
            raise Stopped

    with pytest.raises(Stopped):
        prepared(source, tmp_path / "out", collator, on_progress=stop)
    assert [entry["row"] for entry in rejected(tmp_path / "out")] == [3, 4, 7, 11, 12]


def test_without_rejected_rows_there_is_no_list(tmp_path, source, collator):
    source.write_text("\n".join(source.read_text("utf-8", "replace").splitlines()[:3]))
    assert prepared(source, tmp_path / "out", collator).dropped == {}
    assert "rejected.jsonl" not in files_of(tmp_path / "out")


def test_a_message_without_a_remedy_gets_that_of_its_class():
    entry = rejection(MediaError("is no image", where="messages[0]"), source="a", row=1)
    assert entry["reason"] == "messages[0]: is no image"
    assert entry["remedy"] == "replace the media, or remove the row"
    entry = rejection(SampleTooLongError("too long"), source="a", row=1)
    assert entry["remedy"] == "raise max_length, or set on_overlong"
