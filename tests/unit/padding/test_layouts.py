"""What each layout of packs makes of documents of 2, 3 and 1 tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmcollate import (
    BlockCausalMask,
    ConfigError,
    FlattenedDocuments,
    IndexedMask,
    TransformerEngineTHD,
)
from vlmcollate.errors import SampleTooLongError

FILL = {"input_ids": 0, "labels": -100}


def _row(*documents: int) -> dict[str, torch.Tensor]:
    ids = torch.tensor([n for n, size in enumerate(documents, 1) for _ in range(size)])
    places = torch.cat([torch.arange(size) for size in documents])
    return {
        "input_ids": ids + 10,
        "attention_mask": torch.ones_like(ids),
        "labels": ids + 10,
        "document_ids": ids,
        "position_ids": places,
    }


def test_indexed_mask() -> None:
    batch = IndexedMask(multiple_of=4)([_row(2, 3), _row(1)], FILL)
    assert batch["attention_mask"].tolist() == [[1, 1, 2, 2, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["position_ids"].tolist()[0] == [0, 1, 0, 1, 2, 0, 0, 0]
    assert "document_ids" not in batch


def test_block_causal_mask() -> None:
    batch = BlockCausalMask(length=6)([_row(2, 3)], FILL)
    assert batch["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    window: Any = BlockCausalMask(sliding_window=2)([_row(3)], FILL)["attention_mask"]
    assert window["sliding_attention"][0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert window["full_attention"][0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_flattened_documents() -> None:
    batch = FlattenedDocuments(multiple_of=8)([_row(2, 3), _row(1)], FILL)
    assert batch["input_ids"].tolist() == [[11, 11, 12, 12, 12, 11, 0, 0]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 2, 5, 6, 8]
    assert batch["cu_seq_lens_k"].dtype == torch.int32
    assert batch["max_length_k"].item() == 3
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0, 0, 1]]
    assert "attention_mask" not in batch


def test_transformer_engine() -> None:
    padded = _row(2, 3)
    padded["document_ids"] = torch.tensor([1, 1, 0, 2, 2])
    batch = TransformerEngineTHD(length=6)([padded, _row(1)], FILL)
    assert batch["seq_lens"].tolist() == [[2, 2], [1, -1000]]
    assert batch["seq_lens_padded"].tolist() == [[3, 3], [6, -1000]]
    assert batch["qkv_format"] == "thd"


def test_several_position_axes_come_first() -> None:
    row = _row(2, 3)
    row["position_ids"] = row["position_ids"][:, None].expand(5, 4)
    assert IndexedMask()([row], FILL)["position_ids"].shape == (4, 1, 5)


def test_layouts_refuse() -> None:
    with pytest.raises(SampleTooLongError, match="IndexedMask"):
        IndexedMask(length=4)([_row(2, 3)], FILL)
    with pytest.raises(ConfigError, match="multiple"):
        IndexedMask(length=6, multiple_of=4)
    with pytest.raises(ConfigError, match="right"):
        IndexedMask(side="left")
    row = {**_row(2), "block_ids": torch.tensor([1, 1])}
    for layout in (IndexedMask(), FlattenedDocuments(), TransformerEngineTHD()):
        with pytest.raises(ConfigError, match="bidirectionally"):
            layout([row], FILL)
