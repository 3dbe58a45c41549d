"""Megatron-Energon reads, encodes, packs, batches and resumes with a collator."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
import torch
from PIL import Image

from tests.trainers.rows import read_rows, write_rows
from vlmcollate import BlockCausalMask, ConfigError, collator_for, unpack
from vlmcollate.errors import ConversationError
from vlmcollate.testing import tiny_model, tiny_processor

energon = pytest.importorskip("megatron.energon", reason="run scripts/try_trainer.py energon")
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    from megatron.energon.flavors.jsonl.jsonl_prepare import JsonlPreparator

    path = write_rows(tmp_path_factory.mktemp("energon"))
    JsonlPreparator.prepare_dataset(path)
    return path


def _dataset(path, encoder, *, num_workers=0, **options):
    config = energon.WorkerConfig(
        rank=0,
        world_size=1,
        num_workers=num_workers,
        global_error_handler=energon.reraise_exception,
    )
    given = {
        "batch_size": 2,
        "shuffle_buffer_size": None,
        "max_samples_per_sequence": None,
        **options,
    }
    return energon.get_train_dataset(path, worker_config=config, task_encoder=encoder, **given)


def _encoder(collator, **options):
    from vlmcollate.integrations.energon import CollatorTaskEncoder

    return CollatorTaskEncoder(collator, **options)


def _packing():
    return collator_for(tiny_processor(), counts=False, max_length=128, padding=BlockCausalMask())


def test_batches_are_those_of_the_collator(rows):
    collator = collator_for(tiny_processor())
    loader = energon.get_loader(_dataset(rows, _encoder(collator), batch_size=24, repeat=False))
    (batch,) = list(loader)
    texts = {tuple(ids[:50]) for ids in batch["input_ids"].tolist()}
    direct = collator(read_rows(rows))
    assert texts == {tuple(ids[:50]) for ids in direct["input_ids"].tolist()}
    assert batch["pixel_values"].shape == direct["pixel_values"].shape
    assert batch["pixel_values_videos"].shape == direct["pixel_values_videos"].shape


@pytest.mark.parametrize("packing", [None, 6])
def test_a_model_trains(rows, packing):
    processor = tiny_processor()
    collator = _packing() if packing else collator_for(processor, counts=False)
    model = tiny_model(processor)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    dataset = _dataset(rows, _encoder(collator), num_workers=1, packing_buffer_size=packing)
    losses = []
    for _, batch in zip(range(12), energon.get_loader(dataset), strict=False):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1


@pytest.mark.parametrize("packing", [None, 6])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumes(rows, packing, num_workers):
    def loader():
        encoder = _encoder(_packing())
        return energon.get_savable_loader(
            _dataset(
                rows,
                encoder,
                num_workers=num_workers,
                packing_buffer_size=packing,
                shuffle_buffer_size=4,
                max_samples_per_sequence=4,
            )
        )

    first = loader()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    state = first.save_state_rank()
    expected = [next(batches) for _ in range(4)]
    second = loader()
    second.restore_state_rank(state)
    for batch, found in zip(expected, second, strict=False):
        assert torch.equal(batch["input_ids"], found["input_ids"])
        assert torch.equal(batch["labels"], found["labels"])


def test_packs_hold_the_samples_of_a_buffer():
    collator = _packing()
    encoder = _encoder(collator)
    chats = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a" * n}]
             for n in (3, 50, 7)]  # fmt: skip
    samples = [s for n, chat in enumerate(chats) for s in encoder.encode_sample(_row(n, chat))]
    packs = encoder.select_samples_to_pack(samples)
    assert sorted(s.__key__ for pack in packs for s in pack) == ["0", "1", "2"]
    (pack,) = packs
    restored = unpack(encoder.pack_selected_samples(pack).sample)
    assert [len(sample) for sample in restored] == [len(s.sample) for s in pack]


def _row(key: int, chat: Any) -> Any:
    from vlmcollate.integrations.energon import Row

    return Row(__key__=str(key), __restore_key__=(), files={"json": chat})


def test_a_crude_webdataset_and_one_of_another_type_are_read(tmp_path):
    image = io.BytesIO()
    Image.new("RGB", (56, 56), "teal").save(image, "png")
    with tarfile.open(tmp_path / "shard_0.tar", "w") as shard:
        for name, content in (
            ("0.png", image.getvalue()),
            ("0.txt", b"Which colour?"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    from megatron.energon.flavors import BaseWebdatasetFactory

    BaseWebdatasetFactory.prepare_dataset(
        tmp_path, ["shard_0.tar"], split_parts_ratio=[("train", 1.0)], workers=1
    )
    (tmp_path / ".nv-meta" / "dataset.yaml").write_text(
        "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
    )

    def example(row):
        user = [{"type": "image", "image": row.files["png"]},
                {"type": "text", "text": row.files["txt"]}]  # fmt: skip
        return [{"role": "user", "content": user}, {"role": "assistant", "content": "Teal."}]

    encoder = _encoder(collator_for(tiny_processor()), example=example)
    encoder.decoder = energon.SampleDecoder(image_decode="pilrgb")
    dataset = _dataset(tmp_path, encoder, batch_size=1)
    batch = next(iter(energon.get_loader(dataset)))
    assert batch["n_images_per_sample"].tolist() == [1]


def test_samples_that_are_dropped_or_split(rows):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "no " * 90}]
    dropping = _encoder(collator_for(tiny_processor(), max_length=64, on_overlong="drop"))
    assert list(dropping.encode_sample(_row(0, chat))) == []
    splitting = _encoder(collator_for(tiny_processor(), split_turns=True))
    assert len(list(splitting.encode_sample(_row(0, [*chat, *chat])))) == 2


def test_misconfigurations_are_refused(rows):
    plain = collator_for(tiny_processor(), max_length=64)
    with pytest.raises(ConfigError, match=r"found PadToLongest, expected.*set the padding"):
        _dataset(rows, _encoder(plain), packing_buffer_size=4)
    unbounded = collator_for(tiny_processor(), padding=BlockCausalMask())
    with pytest.raises(ConfigError, match=r"found no max_length either.*set pack_length"):
        _dataset(rows, _encoder(unbounded), packing_buffer_size=4)
    _dataset(rows, _encoder(unbounded, pack_length=64), packing_buffer_size=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"collator": 5}, "collator is wrong: found int, expected a collator of conversations"),
        ({"example": "json"}, "example is wrong: found 'json', expected a function"),
        ({"pack_length": 0}, "pack_length must be an integer of at least 1, not 0"),
        ({"pack_length": "64"}, "pack_length must be an integer of at least 1, not '64'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    from vlmcollate.integrations.energon import CollatorTaskEncoder

    given = {"collator": collator_for(tiny_processor()), **arguments}
    with pytest.raises(ConfigError, match=message):
        CollatorTaskEncoder(given.pop("collator"), **given)


def test_a_sample_without_json_is_refused():
    from vlmcollate.integrations.energon import Row, json_row

    with pytest.raises(ConversationError, match=r"found \['png'\].*pass example="):
        json_row(Row(__key__="0", __restore_key__=(), files={"png": b""}))
    with pytest.raises(ConversationError, match="found TextSample"):
        json_row(energon.TextSample(__key__="0", __restore_key__=(), text="Hi"))
