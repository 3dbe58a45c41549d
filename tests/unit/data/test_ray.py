"""The same files from a pool of Ray actors."""

from __future__ import annotations

import builtins
import json
import warnings
from typing import Any

import pytest

from tests.conftest import NIGHTLY
from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.ray import _write_shards
from vlmcollate.data.ray import prepare_dataset as prepare_with_ray
from vlmcollate.errors import ConversationError
from vlmcollate.testing import tiny_processor


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "chats.jsonl"
    turns = [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"{i} times"}]
        for i in range(9)
    ]
    file.write_text("\n".join(json.dumps(messages) for messages in turns))
    return file


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="the extra vlmcollate[ray] is not installed")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns about itself
        patch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
def test_actors_write_the_files_of_the_plain_run(tmp_path, source):
    collator = collator_for(tiny_processor())
    plain, actors = tmp_path / "plain", tmp_path / "actors"
    expected = prepare_dataset(source, plain, collator=collator, rows_per_shard=2)
    found = prepare_with_ray(
        source,
        actors,
        collator=collator,
        rows_per_shard=2,
        num_actors=2 if NIGHTLY else 1,  # each imports torch
    )
    assert found == expected
    for file in plain.iterdir():
        assert (actors / file.name).read_bytes() == file.read_bytes()


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
def test_the_error_of_an_actor_is_raised_as_it_was(tmp_path, source):
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines[:5], "{", *lines[6:]]))
    collator, options = collator_for(tiny_processor()), dict[str, Any](rows_per_shard=2)
    with pytest.raises(ConversationError, match=r"^chats.jsonl, row 5: the row is no") as caught:
        prepare_with_ray(source, tmp_path / "out", collator=collator, **options)
    assert "ConversationError" in str(caught.value.__cause__)
    assert not list((tmp_path / "out").glob(".*"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    options["on_error"] = "skip"
    found = prepare_with_ray(source, tmp_path / "out", collator=collator, **options)
    assert found == prepare_dataset(source, tmp_path / "plain", collator=collator, **options)


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
def test_actors_notice_a_source_that_changes(tmp_path, source, monkeypatch):
    def write_shards(run, *rest):
        source.write_text(source.read_text() + "\n[]")
        _write_shards(run, *rest)

    monkeypatch.setattr("vlmcollate.data.ray._write_shards", write_shards)
    with pytest.raises(ConfigError, match=r"chats.jsonl' was changed while its rows were read"):
        prepare_with_ray(source, tmp_path / "out", collator=collator_for(tiny_processor()))
    assert not list((tmp_path / "out").glob("*.arrow"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray")
@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
def test_actors_read_a_copy_of_the_source(tmp_path, source, monkeypatch):
    def write_shards(run, *rest):
        copy = source.with_name("copy")  # as another machine has it at the same path
        copy.write_bytes(source.read_bytes())
        copy.replace(source)
        _write_shards(run, *rest)

    collator = collator_for(tiny_processor())
    expected = prepare_dataset(source, tmp_path / "plain", collator=collator)
    monkeypatch.setattr("vlmcollate.data.ray._write_shards", write_shards)
    assert prepare_with_ray(source, tmp_path / "actors", collator=collator) == expected


@pytest.mark.parametrize("num_actors", [0, -1, 1.0, True])
def test_a_wrong_number_of_actors_is_refused(tmp_path, source, num_actors):
    with pytest.raises(ConfigError, match="num_actors must be an integer of at least 1, not"):
        prepare_with_ray(
            source, tmp_path / "out", collator=collator_for(tiny_processor()), num_actors=num_actors
        )


def test_without_ray_the_error_names_the_extra(tmp_path, source, monkeypatch):
    real = builtins.__import__

    def without_ray(name, *args, **kwargs):
        if name == "ray":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ConfigError, match=r"pip install 'vlmcollate\[ray\]'"):
        prepare_with_ray(source, tmp_path / "out", collator=collator_for(tiny_processor()))
