"""Encoding in the dataset gives the collator's own batches, and samples survive the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.processors import FAMILIES, processor_of
from vlmcollate import ConfigError, ConversationError, EncodedSample, collator_for
from vlmcollate.data import (
    PretokenizedDataset,
    PretokenizedIterableDataset,
    load_sample,
    save_sample,
)
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
        PretokenizedDataset(CHATS, collator),
        batch_size=3,
        collate_fn=collator.stack,
        num_workers=workers,
    )
    assert same(next(iter(loader)), collator(CHATS))


def test_the_iterable_twin() -> None:
    collator = collator_for(tiny_processor())
    assert same(collator.stack(list(PretokenizedIterableDataset(CHATS, collator))), collator(CHATS))


def test_a_bad_example_has_its_index() -> None:
    collator = collator_for(tiny_processor())
    with pytest.raises(ConversationError, match="sample 3"):
        PretokenizedDataset([*CHATS, {"nothing": 1}], collator)[3]
    with pytest.raises(ConversationError, match="sample 3"):
        list(PretokenizedIterableDataset([*CHATS, {"nothing": 1}], collator))


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
    collator = collator_for(processor_of(name))
    samples = [collator.encode(example) for example in CHATS]
    for sample in (*samples, collator.pack(samples)):
        save_sample(sample, tmp_path / "sample")
        assert equal(load_sample(tmp_path / "sample"), sample)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_what_is_no_sample_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigError, match="sample: these bytes are no encoded sample"):
        load_sample(tmp_path / "sample")
