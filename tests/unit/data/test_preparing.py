"""Preparing a dataset: the same samples, the same files, whatever happens in between."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, normalizers
from torch.utils.data import DataLoader

from tests.conftest import NIGHTLY
from tests.forking import Script
from tests.processors import processor_of
from vlmcollate import ConfigError, EncodedSample, LocalMedia, SampleError, collator_for
from vlmcollate.data import (
    LengthGroupedSampler,
    Manifest,
    PreparedDataset,
    Progress,
    prepare_dataset,
)
from vlmcollate.data.columns import batch_from_samples
from vlmcollate.data.fingerprint import _CHANGING, _REFUSING, fingerprint_of
from vlmcollate.data.groups import Group
from vlmcollate.data.shard_writing import _message
from vlmcollate.data.shards import Shard
from vlmcollate.errors import SampleTooLongError
from vlmcollate.extend import MediaStrategy
from vlmcollate.testing import tiny_processor

ROWS = 23


def chat(number: int, folder: Path | None = None) -> list[dict[str, Any]]:
    parts = [{"type": "text", "text": f"What is {number}?"}]
    if folder is not None and number % 3 == 0:
        path = folder / f"{number}.png"
        Image.new("RGB", (40 + number, 60), (number, 90, 7)).save(path)
        parts.insert(0, {"type": "image", "image": str(path)})
    answer = [{"type": "text", "text": "It is a number. " * (1 + number % 5)}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


@pytest.fixture
def chats(tmp_path):
    (tmp_path / "media").mkdir()
    return [chat(number, tmp_path / "media") for number in range(ROWS)]


@pytest.fixture
def source(tmp_path, chats):
    file = tmp_path / "chats.jsonl"
    file.write_text("\n".join(json.dumps({"messages": messages}) for messages in chats) + "\n\n")
    return file


@pytest.fixture
def collator():
    return collator_for(tiny_processor())


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_equal(left: EncodedSample, right: EncodedSample) -> None:
    assert list(left.tokens) == list(right.tokens)
    assert list(left.media) == list(right.media)
    pairs = [(left.tokens[key], right.tokens[key]) for key in left.tokens]
    pairs += [(left.media[key], right.media[key]) for key in left.media]
    pairs += [(left.message_ids, right.message_ids), (left.media_ids, right.media_ids)]
    for one, other in pairs:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert dict(left.media_counts) == dict(right.media_counts)
    assert left.label_strategy == right.label_strategy
    assert left.documents == right.documents


def test_the_rows_are_the_encoded_samples(tmp_path, source, chats, collator):
    manifest = prepare_dataset(source, tmp_path / "out", collator=collator, rows_per_shard=5)
    prepared = PreparedDataset(tmp_path / "out", collator)
    assert len(prepared) == manifest.rows == manifest.samples == ROWS
    assert len(manifest.shards) == 5
    for index, messages in enumerate(chats):
        assert_equal(prepared[index], collator.encode(messages))
    assert prepared.lengths.tolist() == [len(collator.encode(messages)) for messages in chats]
    assert manifest.tokens == prepared.lengths.sum()
    assert sum(manifest.lengths.values()) == ROWS
    assert_equal(prepared[-1], prepared[ROWS - 1])
    with pytest.raises(IndexError, match="row 23 of 23"):
        prepared[ROWS]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3", "smolvlm"])
def test_real_processors_come_back_bit_for_bit(tmp_path, chats, name):
    collator = collator_for(processor_of(name))
    prepare_dataset(chats[:4], tmp_path / "out", collator=collator)
    prepared = PreparedDataset(tmp_path / "out", collator)
    batch = collator(chats[:4])
    again = collator.stack([prepared[index] for index in range(4)])
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[key], again[key]) for key in batch)


def test_the_columns_are_for_other_readers(tmp_path, source, chats, collator):
    prepare_dataset(source, tmp_path / "out", collator=collator)
    with pa.ipc.open_stream(tmp_path / "out" / "000000.arrow") as stream:
        table = stream.read_all()
    assert table.schema.field("input_ids").type == pa.list_(pa.int32())
    sample, row = collator.encode(chats[0]), table.slice(0, 1).to_pylist()[0]
    assert row["input_ids"] == sample.input_ids.tolist()
    spans = np.array(row["label_spans"]).reshape(-1, 2)
    trained = [t for start, end in spans for t in range(start, end)]
    assert trained == (sample.labels != -100).nonzero()[:, 0].tolist()
    assert row["length"] == len(sample)
    assert row["media_counts"] == [("image", 1)]
    assert row["grids"] == [("image_grid_thw", sample.media["image_grid_thw"].flatten().tolist())]


def test_every_kind_of_source_gives_the_same(tmp_path, source, chats, collator):
    datasets = pytest.importorskip("datasets")
    rows = [{"messages": messages} for messages in chats]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "chats.parquet", row_group_size=7)
    hub = datasets.Dataset.from_list(rows)
    hub.save_to_disk(str(tmp_path / "saved"))
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = source.read_text().splitlines(keepends=True)
    (folder / "a.jsonl").write_text("".join(lines[:9]))
    (folder / "b.jsonl").write_text("".join(lines[9:]))
    sources = [source, str(tmp_path / "chats.parquet"), hub, tmp_path / "saved", folder, rows]
    for number, what in enumerate(sources):
        out = tmp_path / f"out{number}"
        prepare_dataset(what, out, collator=collator, rows_per_shard=6)
        prepared = PreparedDataset(out, collator)
        assert len(prepared) == ROWS
        for index in (0, 8, 9, 22):
            assert_equal(prepared[index], collator.encode(chats[index]))


def test_processes_do_not_change_the_files(tmp_path, source, collator):
    for number in (1, 2):
        prepare_dataset(
            source, tmp_path / f"out{number}", collator=collator, num_proc=number, rows_per_shard=6
        )
    assert files_of(tmp_path / "out1") == files_of(tmp_path / "out2")


def test_a_run_is_resumed(tmp_path, source, collator):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    prepare_dataset(source, whole, collator=collator, rows_per_shard=6)
    prepare_dataset(source, cut, collator=collator, rows_per_shard=6)
    (cut / "manifest.json").unlink()
    (cut / "000002.arrow").unlink()
    (cut / ".000002.arrow.99.part").write_bytes(b"half")
    kept = (cut / "000001.arrow").stat().st_mtime_ns
    reports: list[Progress] = []
    prepare_dataset(
        source, cut, collator=collator, rows_per_shard=6, on_progress=reports.append, num_proc=2
    )
    assert files_of(cut) == files_of(whole)
    assert (cut / "000001.arrow").stat().st_mtime_ns == kept
    done = [progress.done for progress in reports]
    assert (done[0], done[-1]) == (6, 23)
    assert done == sorted(done)
    assert reports[0].skipping
    assert next(p.resumed for p in reports if not p.skipping) == 17


_RUN = """
import sys
from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor
if __name__ == "__main__":
    print("ready", flush=True)
    source, out, processes = sys.argv[1:]
    prepare_dataset(source, out, collator=collator_for(tiny_processor()), rows_per_shard=2,
                    num_proc=int(processes))
"""


def test_killed_at_random_points_it_gives_the_same_files(tmp_path, source, collator):
    whole, out, script = tmp_path / "whole", tmp_path / "out", tmp_path / "run.py"
    prepare_dataset(source, whole, collator=collator, rows_per_shard=2)
    script.write_text(_RUN)
    random = np.random.default_rng(0)
    for attempt in range(3):
        run = Script(script, str(source), str(out), str(1 + attempt % 2))
        run.output.readline()
        shards, end = 3 * attempt + int(random.integers(1, 4)), time.monotonic() + 60
        while len(list(out.glob("0*.arrow"))) < shards and time.monotonic() < end:
            time.sleep(0.001)
        time.sleep(float(random.uniform(0.0, 0.01)))
        with suppress(ProcessLookupError):  # it may have ended
            os.killpg(run.pid, signal.SIGKILL)
        run.end()
        assert len(list(out.glob("0*.arrow"))) >= shards
    prepare_dataset(source, out, collator=collator, rows_per_shard=2)
    assert files_of(out) == files_of(whole)


_KILLED = """
import sys, time
from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor

class Slow(list):
    _fingerprint = "slow"
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)

if __name__ == "__main__":
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    prepare_dataset(Slow([chat] * 100_000), sys.argv[1], collator=collator_for(tiny_processor()),
                    num_proc=2, rows_per_shard=4,
                    on_progress=lambda progress: print(progress.done, flush=True))
"""


def test_a_killed_run_ends_its_processes_and_unlocks_the_folder(tmp_path, collator):
    script, out = tmp_path / "run.py", tmp_path / "out"
    script.write_text(_KILLED)
    run = Script(script, str(out))
    try:
        while int(run.output.readline()) < 8:  # both processes are at work
            pass
        children = _children_of(run.pid)
        assert len(children) >= 2
        with pytest.raises(ConfigError, match=f"another run is preparing '{out}' right now"):
            prepare_dataset([chat(1)], out, collator=collator)
    finally:
        run.end()
    end = time.monotonic() + 10
    while any(map(_is_alive, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [child for child in children if _is_alive(child)]
    with pytest.raises(ConfigError, match="begun with another source"):
        prepare_dataset([chat(1)], out, collator=collator)


def _children_of(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children")
    if not found.exists():
        pytest.skip("children are found in /proc")
    return [int(child) for child in found.read_text().split()]


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_bad_row_is_named_by_its_file_and_row(tmp_path, source, collator):
    lines = source.read_text().splitlines()
    lines[7] = "{not json"
    source.write_text("\n".join(lines))
    with pytest.raises(SampleError, match=r"chats.jsonl, row 7: the row is no JSON"):
        prepare_dataset(source, tmp_path / "out", collator=collator, rows_per_shard=5)
    with pytest.raises(SampleError, match=r"chats.jsonl, row 7"):
        prepare_dataset(source, tmp_path / "out", collator=collator, rows_per_shard=5, num_proc=2)


def test_bad_rows_are_counted_by_reason(tmp_path, source, collator):
    lines = source.read_text().splitlines()
    lines[7], lines[20] = "{not json", json.dumps({"messages": chat(1)[:1]})
    source.write_text("\n".join(lines))
    manifest = prepare_dataset(source, tmp_path / "out", collator=collator, on_error="skip")
    assert manifest.samples == ROWS - 2
    assert manifest.dropped == {"ConversationError": 1, "LabelError": 1}
    assert "row 20" in manifest.examples["LabelError"]
    assert Manifest.load(tmp_path / "out") == manifest


def test_overlong_samples_follow_the_collator(tmp_path, chats, collator):
    with pytest.raises(SampleTooLongError, match="dataset, row"):
        prepare_dataset(chats, tmp_path / "a", collator=collator, max_length=45)
    dropping = attrs.evolve(collator, max_length=500, on_overlong="drop")
    manifest = prepare_dataset(chats, tmp_path / "b", collator=dropping, max_length=45)
    prepared = PreparedDataset(tmp_path / "b", dropping)
    assert manifest.dropped["SampleTooLongError"] == ROWS - len(prepared)
    assert 0 < len(prepared) < ROWS
    assert prepared.lengths.max() <= 45


def test_packs_hold_every_sample_once(tmp_path, source, collator):
    with pytest.raises(ConfigError, match="packing=True needs max_length"):
        prepare_dataset(source, tmp_path / "no", collator=collator, packing=True)
    prepare_dataset(source, tmp_path / "out", collator=collator, packing=True, max_length=400)
    prepared = PreparedDataset(tmp_path / "out", collator)
    assert prepared.lengths.max() <= 400
    assert len(prepared) < ROWS
    packs = [prepared[index] for index in range(len(prepared))]
    assert sum(len(pack.documents) for pack in packs) == ROWS
    with pa.ipc.open_stream(tmp_path / "out" / "000000.arrow") as stream:
        found = stream.read_all()["source_rows"].to_pylist()
    assert sorted(number for row in found for number in row) == list(range(ROWS))


def test_another_collator_source_or_option_is_refused(tmp_path, source, collator):
    out = tmp_path / "out"
    prepare_dataset(source, out, collator=collator)
    other = attrs.evolve(collator, train_on="last_turn")
    with pytest.raises(ConfigError, match=r"option train_on: 'all_turns' there, 'last_turn' now"):
        prepare_dataset(source, out, collator=other)
    with pytest.raises(ConfigError, match="option train_on"):
        PreparedDataset(out, other)
    with pytest.raises(ConfigError, match="max_length: nothing there, 999 now"):
        prepare_dataset(source, out, collator=collator, max_length=999)
    with pytest.raises(ConfigError, match="resume is off"):
        prepare_dataset(source, out, collator=collator, resume=False)
    changed = tiny_processor()
    changed.chat_template += " "
    with pytest.raises(ConfigError, match="chat template"):
        PreparedDataset(out, collator_for(changed))
    source.write_text(source.read_text() + json.dumps({"messages": chat(1)}))
    with pytest.raises(ConfigError, match="another source"):
        prepare_dataset(source, out, collator=collator)


def test_a_folder_or_source_that_does_not_fit_is_refused(tmp_path, source, collator):
    with pytest.raises(ConfigError, match="holds other files"):
        prepare_dataset(source, tmp_path, collator=collator)
    for bad, message in [
        (tmp_path / "none.jsonl", "there is no file"),
        ([], "no rows"),
        (tmp_path / "media", "holds no .jsonl"),
        (7, "expected paths"),
        ([source, source], "names a file twice"),
    ]:
        with pytest.raises(ConfigError, match=message):
            prepare_dataset(bad, tmp_path / "out", collator=collator)
    with pytest.raises(ConfigError, match="no dataset was prepared here"):
        PreparedDataset(tmp_path / "out", collator)


def test_files_of_others_are_left_alone(tmp_path, source, collator):
    foreign = tmp_path / "downloads"
    foreign.mkdir()
    (foreign / ".movie.mkv.part").write_text("precious")
    with pytest.raises(ConfigError, match=r"holds other files, such as '\.movie"):
        prepare_dataset(source, foreign, collator=collator)
    assert [path.name for path in foreign.iterdir()] == [".movie.mkv.part"]
    out = tmp_path / "out"
    prepare_dataset(source, out, collator=collator)
    ours = [".000000.arrow.7.part", ".1234567.arrow.7.part", ".manifest.json.7.part"]
    theirs = [".movie.mkv.part", ".notes.parquet.7.part", ".000000.arrow.part"]
    for name in (*ours, *theirs):
        (out / name).touch()
    with pytest.raises(ConfigError, match="other options"):
        prepare_dataset(source, out, collator=collator, rows_per_shard=3)
    assert all((out / name).exists() for name in (*ours, *theirs))
    prepare_dataset(source, out, collator=collator)
    assert [(out / name).exists() for name in ours] == [False] * 3
    assert [(out / name).exists() for name in theirs] == [True] * 3


def test_a_plan_that_was_cut_off_is_written_again(tmp_path, source, collator):
    whole, out = tmp_path / "whole", tmp_path / "out"
    prepare_dataset(source, whole, collator=collator)
    plan = (whole / "plan.json").read_bytes()
    for text in (b"", plan[:200]):
        out.mkdir()
        (out / "plan.json").write_bytes(text)
        prepare_dataset(source, out, collator=collator, resume=False)
        assert files_of(out) == files_of(whole)
        shutil.rmtree(out)
    for text in (
        b"{}",
        b"// theirs",
        b"[]",
        b"[" * 100_000,
        plan.replace(b'"schema": 5', b'"schema": 2'),
    ):
        out.mkdir()
        (out / "plan.json").write_bytes(text)
        with pytest.raises(ConfigError, match=r"plan.json' is damaged|found 2, expected"):
            prepare_dataset(source, out, collator=collator)
        assert (out / "plan.json").read_bytes() == text
        shutil.rmtree(out)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, source, collator):
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        with pytest.raises(ConfigError, match="cannot write into"):
            prepare_dataset(source, bad, collator=collator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": "no", "max_length": 99}, "packing must be True or False, not 'no'"),
        ({"resume": 1}, "resume must be True or False"),
        ({"max_length": "5"}, "max_length must be an integer"),
        ({"num_proc": 0}, "num_proc must be"),
        ({"num_proc": True}, "num_proc must be"),
        ({"rows_per_shard": 0.5}, "rows_per_shard must be"),
        ({"on_error": "ignore"}, "on_error must be"),
    ],
)
def test_bad_options_are_refused(tmp_path, source, collator, options, message):
    with pytest.raises(ConfigError, match=message):
        prepare_dataset(source, tmp_path / "out", collator=collator, **options)
    with pytest.raises(ConfigError, match="collator is wrong: found a Qwen2_5_VLProcessor"):
        prepare_dataset(source, tmp_path / "out", collator=collator.processor)


def test_after_an_error_the_same_folder_may_skip(tmp_path, source, collator):
    lines = source.read_text().splitlines()
    lines[7] = "{not json"
    source.write_text("\n".join(lines))
    with pytest.raises(SampleError, match="row 7"):
        prepare_dataset(source, tmp_path / "out", collator=collator, rows_per_shard=5)
    for out in ("out", "other"):
        manifest = prepare_dataset(
            source, tmp_path / out, collator=collator, rows_per_shard=5, on_error="skip"
        )
        assert manifest.dropped == {"ConversationError": 1}
    assert files_of(tmp_path / "out") == files_of(tmp_path / "other")


def test_a_row_that_is_nested_too_deeply_is_skipped(tmp_path, collator):
    lines = ["[" * 100_000, '{"messages":' + "[" * 900 + "]" * 900 + "}", json.dumps(chat(1))]
    (tmp_path / "deep.jsonl").write_text("\n".join(lines))
    manifest = prepare_dataset(
        tmp_path / "deep.jsonl", tmp_path / "out", collator=collator, on_error="skip"
    )
    assert (manifest.samples, manifest.dropped) == (1, {"ConversationError": 2})


def test_a_reader_may_differ_in_options_that_only_select_samples(tmp_path, chats):
    processor = tiny_processor()
    named = json.loads(json.dumps(chats).replace(str(tmp_path / "media") + "/", ""))
    media = LocalMedia(root=tmp_path / "media", max_pixels=10**6)
    strict = collator_for(
        processor,
        media=media,
        max_length=60,
        on_overlong="drop",
        on_template_omission="raise",
        require_labels=False,
    )
    prepare_dataset(named, tmp_path / "out", collator=strict)
    for reader in (
        collator_for(processor),
        collator_for(processor, max_length=9, dummy_media="batch", special_tokens_in_text="error"),
        collator_for(processor, media=LocalMedia(root=tmp_path), shift_labels=True),
        collator_for(processor, pixels="bfloat16"),
        collator_for(processor, media=LocalMedia(max_decoded_audio_bytes=2**31)),
    ):
        assert_equal(PreparedDataset(tmp_path / "out", reader)[0], strict.encode(named[0]))
    others: list[dict[str, Any]] = [
        {"media": LocalMedia(background="black")},
        {"media": LocalMedia(array_sampling_rate=8000)},
        {"dummy_media": "sample"},
        {"train_on": "last_turn"},
    ]
    for options in others:
        with pytest.raises(ConfigError, match="encodes differently: option"):
            PreparedDataset(tmp_path / "out", collator_for(processor, **options))
    other = attrs.evolve(strict, media=attrs.evolve(media, root=tmp_path))
    with pytest.raises(ConfigError, match="other options: media"):
        prepare_dataset(named, tmp_path / "out", collator=other)


def test_every_option_of_the_media_either_changes_or_refuses_them():
    assert sorted([*_CHANGING, *_REFUSING]) == sorted(f.name for f in attrs.fields(LocalMedia))


def test_a_difference_behind_long_equal_text_is_shown(tmp_path, source, collator):
    prepare_dataset(source, tmp_path / "out", collator=collator)
    other = attrs.evolve(collator, media=LocalMedia(array_sampling_rate=8000))
    shown = r"array_sampling_rate=None there, \.\.\..*array_sampling_rate=8000 now\. Prepare"
    with pytest.raises(ConfigError, match=shown):
        PreparedDataset(tmp_path / "out", other)
    with pytest.raises(ConfigError, match=r": option media: \.\.\..*8000 now\. Name"):
        prepare_dataset(source, tmp_path / "out", collator=other)


def _subclass(part: Any) -> type:
    kind = type(part)
    return type(kind.__name__, (kind,), {"scale": 2, "__module__": "a_model"})


@pytest.mark.parametrize(
    "change",
    [
        lambda p: setattr(p.tokenizer, "eos_token", "<|im_start|>"),
        lambda p: setattr(p.tokenizer, "pad_token", "<|im_end|>"),
        lambda p: setattr(p, "image_token", "<|video_pad|>"),
        lambda p: setattr(p, "video_token_id", 1),
        lambda p: p.tokenizer.add_tokens(["<think>"]),
        lambda p: setattr(p.tokenizer.backend_tokenizer, "normalizer", normalizers.Lowercase()),
        lambda p: setattr(p.tokenizer.backend_tokenizer.model, "unk_token", "<|im_end|>"),
        lambda p: setattr(p.image_processor, "image_mean", [0, 0, 0]),
        lambda p: setattr(p.image_processor, "image_mean", torch.tensor([0.5, 0.5, 0.5 + 1e-7])),
        lambda p: setattr(p, "vision_start_token", "<|im_start|>"),
        lambda p: setattr(p, "options", {"image_mean": [0, 0, 0]}),
        lambda p: setattr(p.image_processor, "__class__", _subclass(p.image_processor)),
    ],
)
def test_another_processor_has_another_fingerprint(collator, change):
    processor = tiny_processor()
    assert fingerprint_of(collator_for(processor)) == fingerprint_of(collator)
    change(processor)
    assert fingerprint_of(collator_for(processor)) != fingerprint_of(collator)


def test_another_vocabulary_has_another_fingerprint(collator):
    processor = tiny_processor()
    backend = processor.tokenizer.backend_tokenizer
    facts = json.loads(backend.to_str())
    first, second, *_ = facts["model"]["vocab"]
    vocab = facts["model"]["vocab"]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    processor.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(facts))
    other = fingerprint_of(collator_for(processor))
    assert other["tokenizer"] != fingerprint_of(collator)["tokenizer"]


@pytest.mark.parametrize("is_early", [True, False])
def test_an_option_of_the_vocabulary_counts_whenever_it_was_set(collator, is_early):
    processor = tiny_processor()
    if is_early:
        assert fingerprint_of(collator_for(processor)) == fingerprint_of(collator)
    model = processor.tokenizer.backend_tokenizer.model
    model.dropout = 0.5
    fresh = tiny_processor()
    fresh.tokenizer.backend_tokenizer.model.dropout = 0.5
    found = fingerprint_of(collator_for(processor))
    assert found == fingerprint_of(collator_for(fresh)) != fingerprint_of(collator)
    model.dropout = None
    assert fingerprint_of(collator_for(processor)) == fingerprint_of(collator)


def test_damage_is_reported(tmp_path, source, collator):
    out = tmp_path / "out"
    prepare_dataset(source, out, collator=collator, rows_per_shard=12)
    shard, before = out / "000000.arrow", files_of(out)
    (out / "000001.arrow").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"000001\.arrow' is missing"):
        PreparedDataset(out, collator)
    (tmp_path / "moved").rename(out / "000001.arrow")
    reader = PreparedDataset(out, collator)
    data = shard.read_bytes()
    for bad in (data[: len(data) // 2], b"", b"vlmcshd5" + bytes(100) + b"vlmcshd5"):
        shard.write_bytes(bad)
        for use in (
            lambda: PreparedDataset(out, collator),
            lambda: prepare_dataset(source, out, collator=collator, rows_per_shard=12),
            lambda: reader[3],
        ):
            with pytest.raises(ConfigError, match=r"000000.arrow' is damaged.*remove it"):
                use()
    pq.write_table(pa.table({"x": [1]}), shard)
    with pytest.raises(ConfigError, match=r"or no shard of vlmcollate .*does not end like a shard"):
        prepare_dataset(source, out, collator=collator, rows_per_shard=12)
    shard.unlink()
    with pytest.raises(ConfigError, match="is missing"):
        reader[4]
    prepare_dataset(source, out, collator=collator, rows_per_shard=12)
    assert files_of(out) == before
    shard.write_bytes((out / "000001.arrow").read_bytes())
    with pytest.raises(ConfigError, match="another shard: found '000001"):
        PreparedDataset(out, collator)
    (out / "manifest.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        PreparedDataset(out, collator)


def test_groups_are_cut_by_bytes_and_rows_are_read_alone(tmp_path):
    processor = tiny_processor()
    processor.image_processor.size = {"shortest_edge": 4 * 784, "longest_edge": 8200 * 784}
    collator = collator_for(processor)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1764, 1764, 3), np.uint8))
    image.save(tmp_path / "large.png")
    large = [{"type": "image", "image": str(tmp_path / "large.png")}]
    answer = {"role": "assistant", "content": "Noise."}
    rows = [[{"role": "user", "content": large}, answer], *map(chat, range(40))] * 2
    prepare_dataset(rows, tmp_path / "out", collator=collator)
    shard = Shard.of(tmp_path / "out" / "000000.arrow")
    assert shard.index.rows.tolist() == [1, 32, 8, 1, 32, 8]
    prepared = PreparedDataset(tmp_path / "out", collator)
    for index in (0, 1, 32, 33, 40, 41, 81, 5):
        assert_equal(prepared[index], collator.encode(rows[index]))


def test_rows_are_never_lent(tmp_path, chats, collator):
    prepare_dataset(chats, tmp_path / "out", collator=collator)
    prepared = PreparedDataset(tmp_path / "out", collator)
    for index in range(4):
        sample = prepared[index]
        for tensor in (*sample.tokens.values(), *sample.media.values(), sample.message_ids):
            tensor.fill_(7)
        assert_equal(prepared[index], collator.encode(chats[index]))


def test_the_number_of_open_files_is_bounded(tmp_path, chats, collator, monkeypatch):
    monkeypatch.setattr("vlmcollate.data.prepared._OPEN_SHARDS", 3)
    prepare_dataset(chats, tmp_path / "out", collator=collator, rows_per_shard=1)
    prepared = PreparedDataset(tmp_path / "out", collator)

    def open_files() -> int:
        links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        return sum(str(tmp_path) in os.readlink(link) for link in links if link.is_symlink())

    if not Path("/proc/self/fd").exists():
        pytest.skip("open files are found in /proc")
    assert open_files() == 0
    for index in np.random.default_rng(0).integers(0, ROWS, 60).tolist():
        assert_equal(prepared[index], collator.encode(chats[index]))
        assert open_files() <= 3
    copy = pickle.loads(pickle.dumps(prepared._reader))
    assert copy._shard.cache_info().currsize == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_the_rest_of_an_epoch_is_that_of_an_uninterrupted_run(tmp_path, source, collator, workers):
    prepare_dataset(source, tmp_path / "out", collator=collator)
    prepared = PreparedDataset(tmp_path / "out", collator)

    def batches(sampler: LengthGroupedSampler) -> list[Any]:
        loader = DataLoader(
            prepared,
            batch_size=4,
            sampler=sampler,
            collate_fn=collator.stack,
            num_workers=workers,
        )
        return list(loader)

    whole = batches(LengthGroupedSampler(lengths=prepared.lengths, batch_size=4, seed=3))
    sampler = LengthGroupedSampler(lengths=prepared.lengths, batch_size=4, seed=3)
    sampler.load_state_dict({**sampler.state_dict(), "given": 8})
    rest = batches(sampler)
    assert len(rest) == len(whole) - 2
    for one, other in zip(rest, whole[2:], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@st.composite
def any_sample(draw):
    length = draw(st.integers(0, 12) | st.integers(60, 70))
    ints = st.lists(st.integers(-1, 3), min_size=length, max_size=length)

    def tensor(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64)

    ids = tensor(draw(ints)) + 5
    trained = torch.tensor(draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    labels = torch.where(trained.bool(), ids + draw(st.sampled_from([0, 0, 1])), -100)
    others = {
        "loss_weights": torch.rand(length),
        "position_ids": torch.arange(3 * length).reshape(length, 3),
        "mm_token_type_ids": tensor(draw(ints)),
    }
    return EncodedSample(
        tokens={
            "attention_mask": tensor(draw(ints)),
            "input_ids": ids,
            "labels": labels,
            **{key: others[key] for key in draw(st.sets(st.sampled_from(sorted(others))))},
        },
        message_ids=tensor(draw(ints)),
        media_ids=tensor(draw(ints)),
        media=draw(st.sampled_from([{}, {"pixel_values": torch.rand(2, 3).to(torch.bfloat16)}])),
        media_counts=draw(st.sampled_from([{}, {"image": 2}])),
        label_strategy="any",
    )


@settings(max_examples=100 if NIGHTLY else 25, deadline=None)
@given(st.lists(any_sample(), min_size=1, max_size=5))
def test_any_samples_survive_their_group(samples):
    batch = batch_from_samples(samples, [[number] for number in range(len(samples))])
    batch.validate(full=True)
    for compresses in (False, True):
        whole = Group.of(_array(_message(batch, compresses=compresses)), len(samples))
        for number, sample in enumerate(samples):
            assert_equal(whole.sample(number), sample)
            alone = _message(batch.slice(number, 1), compresses=compresses)
            assert_equal(Group.of(_array(alone), 1).sample(0), sample)


def _array(message: memoryview) -> np.ndarray[Any, Any]:
    return np.frombuffer(bytearray(message), np.uint8)


def collator_that_scales(collator: Any, factor: int) -> Any:
    kind: Any = type(collator)

    class Scaling(kind):  # type: ignore[misc]  # it is Any
        def postprocess(self, sample: Any) -> Any:
            return attrs.evolve(sample, message_ids=sample.message_ids * factor)

    return Scaling(processor=collator.processor)


def test_the_code_of_a_subclass_counts(tmp_path, collator):
    one, same, other = (collator_that_scales(collator, factor) for factor in (1, 1, 2))
    prepare_dataset([chat(1)], tmp_path / "out", collator=one)
    assert len(PreparedDataset(tmp_path / "out", same)) == 1
    with pytest.raises(ConfigError, match="encodes differently: code of the collator: "):
        PreparedDataset(tmp_path / "out", other)


class CachingMedia(MediaStrategy):
    """A strategy that keeps what it loaded."""

    cache: dict[str, Any]

    def __init__(self) -> None:
        object.__setattr__(self, "cache", {})

    def load_image(self, source: Any, *, where: str) -> Any:
        return self.cache.setdefault(where, LocalMedia().load_image(source, where=where))


def test_the_state_of_a_media_strategy_does_not_count(tmp_path, collator):
    image = {"type": "image", "image": Image.new("RGB", (56, 56))}
    row = [{"role": "user", "content": [image]}, {"role": "assistant", "content": "It is black."}]
    caching = attrs.evolve(collator, media=CachingMedia())
    prepare_dataset([row], tmp_path / "out", collator=caching)
    assert caching.media.cache
    assert len(PreparedDataset(tmp_path / "out", caching)) == 1
