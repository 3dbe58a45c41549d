"""Encoding in the dataset gives the collator's own batches, and samples survive the disk."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import Qwen3_5Config, Qwen3VLConfig

from tests.processors import processor_of
from tests.processors.families import FAMILIES
from vlmcollate import ConfigError, EncodedSample, collator_for
from vlmcollate.data import (
    EncodedDataset,
    EncodedIterableDataset,
    load_sample,
    save_sample,
)
from vlmcollate.errors import ConversationError
from vlmcollate.testing import tiny_processor


def chat(images: int) -> list[dict[str, Any]]:
    parts: list[Any] = [
        {"type": "image", "image": Image.new("RGB", (56, 56), "teal")} for _ in range(images)
    ]
    parts.append({"type": "text", "text": "What?"})
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": "That."}]


CHATS = [chat(1), chat(0), chat(2)]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_collators(workers: int) -> None:
    collator = collator_for(tiny_processor())
    loader = DataLoader(
        EncodedDataset(CHATS, collator),
        batch_size=3,
        collate_fn=collator.stack,
        num_workers=workers,
    )
    assert same(next(iter(loader)), collator(CHATS))


def test_the_iterable_twin() -> None:
    collator = collator_for(tiny_processor())
    assert same(collator.stack(list(EncodedIterableDataset(CHATS, collator))), collator(CHATS))


class SelfSharing(IterableDataset[Any]):
    """Shares itself, as the datasets of `datasets` do, and knows where it stands."""

    def __init__(self) -> None:
        self.at, self.start, self.epoch = 0, 0, 0

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        mine = TEXTS[worker.id :: worker.num_workers] if worker else TEXTS
        start, self.start = self.start, 0
        for self.at, text in enumerate(mine[start:], start + 1):
            yield text

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["at"]


TEXTS = [
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes " * i}]
    for i in range(1, 10)
]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("dataset", [TEXTS, SelfSharing()])
def test_workers_share_an_iterable(dataset: Any, workers: int) -> None:
    collator = collator_for(tiny_processor())
    iterable = EncodedIterableDataset(dataset, collator)
    loader: DataLoader[Any] = DataLoader(iterable, batch_size=None, num_workers=workers)
    found = [len(sample) for sample in loader]
    assert sorted(found) == [len(collator.encode(text)) for text in TEXTS]


@pytest.mark.parametrize("make", [lambda: TEXTS, SelfSharing])
@pytest.mark.parametrize("read", range(10))
def test_an_iterable_resumes_from_its_state(make: Any, read: int) -> None:
    collator = collator_for(tiny_processor())
    first, second = (EncodedIterableDataset(make(), collator) for _ in range(2))
    stream = iter(first)
    for _ in range(read):
        next(stream)
    second.load_state_dict(first.state_dict())
    expected = [len(collator.encode(text)) for text in TEXTS]
    assert [len(sample) for sample in second] == expected[read:]
    assert [len(sample) for sample in second] == expected
    with pytest.raises(ConfigError, match="another kind of dataset"):
        second.load_state_dict({} if make is SelfSharing else {"read": 0, "dataset": {}})


@pytest.mark.filterwarnings("ignore")  # torchdata warns about itself
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make", [lambda: TEXTS, SelfSharing])
def test_torchdata_resumes_an_iterable(make: Any, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")
    collator = collator_for(tiny_processor())

    def loader() -> Any:
        return stateful.StatefulDataLoader(
            EncodedIterableDataset(make(), collator), batch_size=None, num_workers=workers
        )

    whole = [len(sample) for sample in loader()]
    for stop in (1, 4, 8):
        stopped, resumed = loader(), loader()
        stream = iter(stopped)
        head = [len(next(stream)) for _ in range(stop)]
        resumed.load_state_dict(stopped.state_dict())
        assert head + [len(sample) for sample in resumed] == whole


@pytest.mark.filterwarnings("ignore")  # torchdata warns about itself
@pytest.mark.parametrize(("workers", "stops"), [(0, range(6)), (2, (5,))])
def test_torchdata_resumes_behind_the_last_batch_of_a_worker(workers: int, stops: Any) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")
    collator = collator_for(tiny_processor())

    def loader() -> Any:
        iterable = EncodedIterableDataset(TEXTS, collator)
        return stateful.StatefulDataLoader(
            iterable, batch_size=2, collate_fn=_lengths, num_workers=workers
        )

    whole = list(loader())
    for stop in stops:
        stopped, resumed = loader(), loader()
        head = list(itertools.islice(stopped, stop))
        resumed.load_state_dict(stopped.state_dict())
        assert head + list(resumed) == whole
        assert list(resumed) == whole


def _lengths(samples: list[EncodedSample]) -> list[int]:
    return [len(sample) for sample in samples]


def test_an_iterable_that_distributes_itself_gets_the_epoch() -> None:
    collator, inner = collator_for(tiny_processor()), SelfSharing()
    EncodedIterableDataset(inner, collator).set_epoch(3)
    assert inner.epoch == 3
    EncodedIterableDataset(TEXTS, collator).set_epoch(3)


def test_a_dataset_of_the_hub_distributes_itself() -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    collator = collator_for(tiny_processor())
    rows = datasets.Dataset.from_list([{"messages": text} for text in TEXTS])
    hub = rows.to_iterable_dataset(num_shards=2)
    for workers in (0, 2):
        iterable = EncodedIterableDataset(hub, collator)
        loader: DataLoader[Any] = DataLoader(iterable, batch_size=None, num_workers=workers)
        assert sum(1 for _ in loader) == len(TEXTS)


def test_a_bad_example_has_its_index() -> None:
    collator = collator_for(tiny_processor())
    with pytest.raises(ConversationError, match="sample 3"):
        EncodedDataset([*CHATS, {"nothing": 1}], collator)[3]
    iterable = EncodedIterableDataset([*CHATS, {"nothing": 1}], collator)
    for workers in (0, 2):
        loader: DataLoader[Any] = DataLoader(iterable, batch_size=None, num_workers=workers)
        with pytest.raises(ConversationError, match="sample 3"):
            list(loader)


def equal(a: EncodedSample, b: EncodedSample) -> bool:
    facts = ("media_counts", "label_strategy", "documents")
    return (
        same(dict(a.tokens), dict(b.tokens))
        and same(dict(a.media), dict(b.media))
        and torch.equal(a.message_ids, b.message_ids)
        and torch.equal(a.media_ids, b.media_ids)
        and all(getattr(a, name) == getattr(b, name) for name in facts)
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sample_and_a_pack_survive_the_disk(name: str, tmp_path: Path) -> None:
    configs = {"qwen3_vl": Qwen3VLConfig(), "qwen3_5": Qwen3_5Config()}
    collator = collator_for(processor_of(name), model_config=configs.get(name))
    samples = [collator.encode(example) for example in CHATS]
    is_refused = name == "qwen3_5" and collator.packing_refusal  # by an older transformers
    for sample in (*samples, *(() if is_refused else [collator.pack(samples)])):
        save_sample(sample, tmp_path / "sample")
        assert equal(load_sample(tmp_path / "sample"), sample)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_bytes_of_no_sample_are_refused(tmp_path: Path) -> None:
    file, one = tmp_path / "sample", {"a": torch.zeros(1)}
    with pytest.raises(ConfigError, match=r"cannot read the sample: .*sample"):
        load_sample(file)
    for data in (
        b"nothing of the kind",
        save(one),
        *(save(one, metadata={"vlmcollate": text}) for text in ("{}", "[]", "3", "{", "null")),
        save(one, metadata={"vlmcollate": '{"order": [["a"], []]}'}),
        save(one, metadata={"vlmcollate": '{"order": 5}'}),
    ):
        head = b"vlmcollate sample 1, sha256 " + hashlib.sha256(data).hexdigest().encode() + b"\n"
        for text in (data, head + data):
            file.write_bytes(text)
            with pytest.raises(ConfigError, match="sample: these bytes are no encoded sample"):
                load_sample(file)
