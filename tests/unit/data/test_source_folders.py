"""A folder is read as a whole, or the error names what would be left out."""

from __future__ import annotations

import gzip
import json
import os

import fsspec
import pytest

from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.rows import Rows
from vlmcollate.data.sources import Source
from vlmcollate.testing import tiny_processor


def row(number):
    return {
        "messages": [
            {"role": "user", "content": str(number)},
            {"role": "assistant", "content": "Yes"},
        ]
    }


def line(number):
    return json.dumps(row(number)) + "\n"


def write(folder, *names):
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        data = line(number).encode()
        file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def numbers(source):
    found = [value for _, value in Rows.of(source)]
    return [int(value["messages"][0]["content"]) for value in found]


@pytest.fixture(params=["local", "memory"])
def placed(request, tmp_path):
    """Returns how a folder is named as a source: by its path, or by the URL of its copy."""
    if request.param == "local":
        yield lambda folder: folder
        return
    memory = fsspec.filesystem("memory")

    def copied(folder):
        memory.put(str(folder), "/placed", recursive=True)
        return "memory://placed"

    yield copied
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_suffixes_are_read_in_any_case(tmp_path, placed):
    write(tmp_path, "a.jsonl", "B.JSONL", "c.Json", "d.NDJSON")
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    parquet.write_table(pa.Table.from_pylist([row(4)]), tmp_path / "E.PARQUET")
    assert sorted(numbers(placed(tmp_path))) == [0, 1, 2, 3, 4]
    (tmp_path / "LIST.JSON").write_text(json.dumps([row(7), row(8)]))
    assert numbers(tmp_path / "LIST.JSON") == [7, 8]
    assert numbers(tmp_path / "B.JSONL") == [1]


@pytest.mark.parametrize(
    "name",
    [
        "c.jsonl.gz",
        "c.JSONL.GZ",
        "c.json.bz2",
        "c.parquet.zst",
        "c.ndjson.xz",
        "c.arrow",
        "c.csv",
        "c.tsv",
        "sub/d.jsonl",
        "sub/D.JSONL",
        "sub/deep/d.parquet",
        "sub/d.json.gz",
        "dir.jsonl/d.jsonl",
        "images/metadata.jsonl",
    ],
)
def test_a_file_that_would_be_left_out_is_named(tmp_path, placed, name):
    write(tmp_path, "a.jsonl", name)
    message = rf"would be read in part: found 1 file of data that is not read, {name!r}; expected"
    with pytest.raises(ConfigError, match=message) as caught:
        numbers(placed(tmp_path))
    assert "name each file or subfolder" in str(caught.value)


def test_the_first_of_many_are_named(tmp_path, placed):
    write(tmp_path, "a.jsonl", "B.JSONL", *(f"sub/{number}.jsonl" for number in range(10, 19)))
    with pytest.raises(ConfigError, match="found 9 files of data that are not read, such as ") as e:
        numbers(placed(tmp_path))
    assert "'sub/10.jsonl', 'sub/11.jsonl', 'sub/12.jsonl'; expected" in str(e.value)


def test_a_folder_with_all_data_in_a_subfolder_names_it(tmp_path, placed):
    """As a repository of the Hugging Face Hub."""
    write(tmp_path, "README.md", ".gitattributes", "dataset_infos.json", "data/train-0.jsonl")
    with pytest.raises(ConfigError, match=r"'data/train-0\.jsonl'.*; name each file or subfolder"):
        numbers(placed(tmp_path))
    assert numbers(tmp_path / "data") == [3]


def test_files_below_may_be_named_beside_their_folder(tmp_path):
    write(tmp_path, "a.jsonl", "sub/b.jsonl", "sub/c.jsonl")
    source = Source.of([tmp_path, tmp_path / "sub"], rows_per_shard=1)
    assert [os.path.relpath(piece.source, tmp_path) for piece in source.pieces] == [
        "a.jsonl",
        "sub/b.jsonl",
        "sub/c.jsonl",
    ]
    with pytest.raises(ConfigError, match=r"found 1 file of data that is not read, 'sub/c\.jsonl'"):
        Source.of([tmp_path, tmp_path / "sub" / "b.jsonl"], rows_per_shard=1)
    with pytest.raises(ConfigError, match="the source names a file twice"):
        Source.of([tmp_path / "sub", tmp_path / "sub" / "b.jsonl"], rows_per_shard=1)


def test_what_is_no_data_stays_unread(tmp_path, placed):
    write(tmp_path, "a.jsonl", "images/1.png", "images/deep/2.jpg", "notes.txt", "README.md")
    write(tmp_path, ".hidden.jsonl", "._a.jsonl", ".cache/download/b.jsonl", ".git/c.json")
    write(tmp_path, "dataset_info.json.lock", "dataset_infos.json", "state.json", "sub/state.json")
    write(tmp_path, "processor/tokenizer.json", "processor/preprocessor_config.json")
    write(tmp_path, "__MACOSX/a.jsonl", "a.jsonl")
    (tmp_path / "a.jsonl").write_text(line(5))
    assert numbers(placed(tmp_path)) == [5]


def test_a_prepared_folder_may_lie_in_its_source(tmp_path):
    write(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"messages": []}\n')
    collator = collator_for(tiny_processor())
    for _ in range(2):
        manifest = prepare_dataset(
            tmp_path, tmp_path / "out", collator=collator, on_error="skip", rows_per_shard=1
        )
        assert (manifest.samples, sum(manifest.dropped.values())) == (1, 1)
    with pytest.raises(ConfigError, match=r"out' holds no \.jsonl"):
        numbers(tmp_path / "out")
    write(tmp_path, "out/more.jsonl")
    with pytest.raises(ConfigError, match=r"is not read, 'out/more\.jsonl'"):
        numbers(tmp_path)


def test_a_saved_dataset_below_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    write(tmp_path, "a.jsonl")
    datasets.Dataset.from_list([row(1)]).save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"'saved/data-00000-of-00001\.arrow'"):
        numbers(tmp_path)
    assert numbers(tmp_path / "saved") == [1]


def test_a_folder_with_the_name_of_a_file_is_a_folder(tmp_path, placed):
    write(tmp_path, "dir.jsonl/image.png", "b.jsonl")
    assert numbers(placed(tmp_path)) == [1]
    write(tmp_path / "dir.json", "a.jsonl")
    assert numbers(tmp_path / "dir.json") == [0]
    with pytest.raises(ConfigError, match=r"dir\.jsonl' holds no \.jsonl"):
        numbers(tmp_path / "dir.jsonl")


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "other", "c.jsonl")
    write(tmp_path / "rows", "a.jsonl")
    (tmp_path / "rows" / "b.jsonl").symlink_to(tmp_path / "other" / "c.jsonl")
    (tmp_path / "rows" / "loop").symlink_to(tmp_path / "rows")
    (tmp_path / "rows" / "up").symlink_to(tmp_path)
    assert numbers(tmp_path / "rows") == [0, 0]
    (tmp_path / "rows" / "sub").symlink_to(tmp_path / "other")
    assert numbers(tmp_path / "rows") == [0, 0], "sub/c.jsonl is b.jsonl"
    write(tmp_path / "other", "d.jsonl")
    with pytest.raises(ConfigError, match=r"is not read, 'sub/c\.jsonl'|'sub/d\.jsonl'"):
        numbers(tmp_path / "rows")
    (tmp_path / "rows" / "sub").unlink()
    (tmp_path / "rows" / "gone.jsonl").symlink_to(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"is not read, 'gone\.jsonl'"):
        numbers(tmp_path / "rows")


def test_a_subfolder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    """The path of the innermost folder is too long for the system."""
    write(tmp_path, "a.jsonl")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        os.mkdir("x" * 250)
        os.chdir("x" * 250)
    with pytest.raises(ConfigError, match=r"' cannot be listed: .*; name each file to read"):
        numbers(tmp_path)
    assert numbers(tmp_path / "a.jsonl") == [0]


def test_a_compressed_file_is_refused_with_its_remedy(tmp_path):
    write(tmp_path, "a.jsonl.gz")
    with pytest.raises(ConfigError, match=r"a\.jsonl\.gz' is compressed: .*; decompress it"):
        numbers(tmp_path / "a.jsonl.gz")
