"""The same files from a pool of Ray actors."""

from __future__ import annotations

import builtins
import json

import pytest

from tests.conftest import NIGHTLY
from vlmcollate import ConfigError, collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.data.ray import prepare_dataset as prepare_with_ray
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


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
def test_actors_write_the_files_of_the_plain_run(tmp_path, source, monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra vlmcollate[ray] is not installed")
    monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
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
    finally:
        ray.shutdown()


def test_without_ray_the_error_names_the_extra(tmp_path, source, monkeypatch):
    real = builtins.__import__

    def without_ray(name, *args, **kwargs):
        if name == "ray":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ConfigError, match=r"pip install 'vlmcollate\[ray\]'"):
        prepare_with_ray(source, tmp_path / "out", collator=collator_for(tiny_processor()))
