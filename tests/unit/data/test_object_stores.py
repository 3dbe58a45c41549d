"""Sources in object stores: the rows are those of local files."""

from __future__ import annotations

import json

import fsspec
import pytest
from typer.testing import CliRunner

from vlmcollate import ConfigError, collator_for
from vlmcollate.cli.app import app
from vlmcollate.data import PreparedDataset, prepare_dataset
from vlmcollate.data.rows import Rows
from vlmcollate.testing import tiny_processor


def chat(answer):
    return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]


ROWS = [{"messages": chat(f"yes {k}")} for k in range(7)]
LINES = "\ufeff" + "\n\n".join(map(json.dumps, ROWS))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A local folder and one in memory with the same files."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("rows")
    (folder / "a.jsonl").write_text(LINES, "utf-8")
    (folder / "list.json").write_text(json.dumps(ROWS), "utf-8")
    (folder / "notes.txt").write_text("no rows")
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "b.parquet", row_group_size=3)
    (folder / "both").mkdir()
    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "b.parquet"):
        (folder / "both" / name).write_bytes((folder / name).read_bytes())
    memory.put(str(folder), "/rows", recursive=True)
    yield folder
    memory.store.clear()


@pytest.mark.parametrize("name", ["a.jsonl", "b.parquet", "list.json", "both", "both/"])
def test_rows_are_those_of_the_local_file(places, name):
    expected = list(Rows.of(places / name, "1:6"))
    assert [number for number, _ in expected] == [1, 2, 3, 4, 5]
    assert list(Rows.of(f"memory://rows/{name}", "1:6")) == expected
    assert list(Rows.of(f"file://{places}/{name}", "1:6")) == expected
    assert list(Rows.of(f"local://{places}/{name}", "1:6")) == expected
    assert len(Rows.of(f"memory://rows/{name}")) == len(Rows.of(places / name))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("memory://rows/none.jsonl", "there is no file 'memory://rows/none.jsonl'"),
        ("memory://rows/notes.txt", "has the wrong suffix"),
        ("nothing://rows/a.jsonl", "URLs of nothing:// cannot be read"),
        (["memory://rows/a.jsonl"] * 2, "the source names a file twice"),
    ],
)
def test_what_holds_no_rows_is_refused(places, name, message):
    with pytest.raises(ConfigError, match=message):
        prepare_dataset(name, places / "never", collator=collator_for(tiny_processor()))
    assert not (places / "never").exists()


def test_a_source_in_a_store_is_prepared_and_resumed(places, tmp_path):
    collator = collator_for(tiny_processor())
    for _ in range(2):
        manifest = prepare_dataset(
            "memory://rows/both", tmp_path / "p", collator=collator, rows_per_shard=4
        )
    assert manifest.rows == 14
    dataset = PreparedDataset(tmp_path / "p", collator)
    assert dataset[3].input_ids.equal(collator.encode(ROWS[3]).input_ids)
    fsspec.filesystem("memory").pipe("/rows/both/a.jsonl", json.dumps(ROWS[0]).encode())
    with pytest.raises(ConfigError, match="was begun with another source"):
        prepare_dataset("memory://rows/both", tmp_path / "p", collator=collator)


def test_the_command_line_takes_urls(places, tmp_path):
    tiny_processor().save_pretrained(tmp_path / "processor")
    arguments = [str(tmp_path / "processor"), "memory://rows/a.jsonl", "--rows", "2", "--json"]
    found = CliRunner().invoke(app, ["inspect", *arguments])
    assert json.loads(found.stdout)["row"] == 2
    (tmp_path / "m.yaml").write_text("sources: {a: {data: 'memory://rows/a.jsonl', weight: 1}}")
    arguments[1] = str(tmp_path / "m.yaml")
    found = CliRunner().invoke(app, ["stats", *arguments])
    assert json.loads(found.stdout)["sources"]["a"]["rows"] == 1
    output = str(tmp_path / "out")
    arguments = [arguments[0], "memory://rows/b.parquet", "--output", output]
    found = CliRunner().invoke(app, ["prepare", *arguments])
    assert found.exit_code == 0, found.output
    assert "7 rows in" in found.stdout
