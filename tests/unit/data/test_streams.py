"""Streams are prepared like other sources, and a resumed run compares the rows that it skips."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import pytest
import torch
from PIL import Image

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import PreparedDataset, Progress, prepare_dataset
from vlmcollate.errors import SourceError
from vlmcollate.testing import tiny_processor

ROWS = 11


def rows(count=ROWS, word="Yes"):
    content: Any
    for number in range(count):
        content = [{"type": "image", "image": Image.new("RGB", (60, 60), (number, 9, 9))}]
        content = content if number % 4 == 0 else f"What is {number}?"
        yield {
            "messages": [
                {"role": "user", "content": content},
                {"role": "assistant", "content": word},
            ]
        }


class Torch(torch.utils.data.IterableDataset[Any]):
    def __iter__(self):
        return rows()


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def prepare(source, out, collator, **options):
    return prepare_dataset(source, out, collator=collator, rows_per_shard=4, **options)


@pytest.mark.parametrize("num_proc", [1, 2, 5])
def test_a_stream_gives_the_samples_of_a_list(tmp_path, collator, num_proc):
    seen: list[Progress] = []
    manifest = prepare(rows, tmp_path / "out", collator, num_proc=num_proc, on_progress=seen.append)
    assert (manifest.samples, len(manifest.shards)) == (ROWS, 3)
    assert (seen[-1].done, seen[-1].total) == (ROWS, None)
    prepared = PreparedDataset(tmp_path / "out", collator)
    for number, row in enumerate(rows()):
        sample, expected = prepared[number], collator.encode(row)
        assert torch.equal(sample.input_ids, expected.input_ids)
        assert sample.media.keys() == expected.media.keys()
    if num_proc > 1:
        prepare(rows, tmp_path / "one", collator)
        assert files_of(tmp_path / "one") == files_of(tmp_path / "out")


def test_every_kind_of_stream_is_read(tmp_path, collator):
    datasets = pytest.importorskip("datasets")
    expected = [len(collator.encode(row)) for row in rows()]
    streams = [rows(), Torch(), datasets.IterableDataset.from_generator(rows), map(dict, rows())]
    for number, stream in enumerate(streams):
        prepare(stream, tmp_path / str(number), collator)
        prepared = PreparedDataset(tmp_path / str(number), collator)
        assert prepared.lengths.tolist() == expected


def reusing_the_row():
    row: dict[str, Any] = {}
    for fresh in rows():
        row.update(fresh)
        yield row


def reusing_an_inner_list():
    messages: list[Any] = []
    for fresh in rows():
        messages[:] = fresh["messages"]
        yield {"messages": messages}


def reusing_an_ordered_dict():
    row: OrderedDict[str, Any] = OrderedDict()
    for fresh in rows():
        row["messages"] = tuple(fresh["messages"])
        yield row


def reusing_a_message():
    row: Any = next(rows(1))
    for fresh in rows():
        for message, new in zip(row["messages"], fresh["messages"], strict=True):
            message.update(new)
        yield (row, row)[0]


@pytest.mark.parametrize(
    "stream",
    [reusing_the_row, reusing_an_inner_list, reusing_an_ordered_dict, reusing_a_message],
)
def test_a_stream_may_reuse_its_containers(tmp_path, collator, stream):
    prepare(stream, tmp_path / "out", collator)
    prepared = PreparedDataset(tmp_path / "out", collator)
    for number, row in enumerate(rows()):
        assert torch.equal(prepared[number].input_ids, collator.encode(row).input_ids)
    (tmp_path / "out" / "000001.arrow").unlink()
    prepare(stream, tmp_path / "out", collator)  # and the hashes of the others agree


@pytest.mark.parametrize("missing", [[1], [0, 2], [0, 1, 2]])
def test_a_resumed_run_skips_the_rows_of_complete_shards(tmp_path, collator, missing, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    seen: list[Progress] = []
    prepare(rows, whole, collator)
    prepare(rows, out, collator)
    for name in (*(f"{number:06d}.arrow" for number in missing), "manifest.json"):
        (out / name).unlink()
    monkeypatch.setattr("vlmcollate.data.reporting._SECONDS", 0)
    prepare(rows, out, collator, on_progress=seen.append)
    assert files_of(out) == files_of(whole)
    left = sum([4, 4, 3][number] for number in missing)
    assert any(progress.skipping for progress in seen) == (len(missing) < 3)
    assert (seen[-1].done, seen[-1].resumed) == (ROWS, ROWS - left)


def test_a_stream_that_changed_is_refused(tmp_path, collator):
    out = tmp_path / "out"
    prepare(rows, out, collator)
    with pytest.raises(ConfigError, match=r"000000.arrow' may be of other rows: rows 0 to 3 of"):
        prepare(rows(word="No"), out, collator)
    with pytest.raises(ConfigError, match=r"000001.arrow' may be of other rows: rows 4 to 5"):
        prepare(rows(6), out, collator)
    with pytest.raises(ConfigError, match=r"000001.arrow' is of other rows: the stream ends"):
        prepare(rows(4), out, collator)
    with pytest.raises(ConfigError, match="the stream has no rows"):
        prepare(iter([]), out, collator)
    with pytest.raises(ConfigError, match="a function that returns int, expected one that returns"):
        prepare(lambda: 3, tmp_path / "other", collator)


def test_rows_that_cannot_be_hashed_are_prepared_but_not_resumed(tmp_path, collator):
    def opened():
        for row in rows(3):
            yield {**row, "id": (number for number in range(3))}

    assert prepare(opened, tmp_path / "out", collator).samples == 3
    with pytest.raises(ConfigError, match="cannot be hashed and so not compared"):
        prepare(opened, tmp_path / "out", collator)


def test_bad_rows_and_errors_of_the_stream_name_their_place(tmp_path, collator):
    def failing():
        yield from [*rows(3), {"messages": []}]
        raise OSError("the connection is lost")

    message = "source 'stream' failed at row 4: OSError: the connection is lost; run again"
    with pytest.raises(SourceError, match=message):
        prepare(failing, tmp_path / "out", collator, on_error="skip")
    (entry,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert (entry["source"], entry["row"]) == ("stream", 3)
    with pytest.raises(ValueError, match="stream, row 3: messages: expected at least one"):
        prepare(failing, tmp_path / "again", collator)
