"""The indices that datasets, plans and mixtures take, and that they write to none of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlmcollate import collator_for, plan_packs
from vlmcollate.data import EncodedDataset, PreparedDataset, prepare_dataset
from vlmcollate.mixture import Mixture
from vlmcollate.testing import tiny_processor

ROWS = 300  # beyond the largest uint8
INDEXED = ["prepared", "encoded", "plan", "mixture"]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    collator, folder = collator_for(tiny_processor()), tmp_path_factory.mktemp("indices") / "out"
    rows = [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No " * (1 + n % 7)}]
        for n in range(ROWS)
    ]
    prepare_dataset(rows, folder, collator=collator)
    return {
        "prepared": PreparedDataset(folder, collator),
        "encoded": EncodedDataset(rows, collator),
        "plan": plan_packs(range(1, ROWS + 1), max_length=ROWS),
        "mixture": Mixture({"a": (rows, 1)}, seed=1),
    }


def shown(value):
    return value.input_ids.tolist() if hasattr(value, "input_ids") else str(value)


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, np.array, torch.tensor])
@pytest.mark.parametrize("number", [0, 5, 127, -3])
def test_an_integer_of_any_library_is_an_index(indexed, name, kind, number):
    index = kind(number if kind is not np.uint8 else abs(number))
    number = int(index)
    assert shown(indexed[name][index]) == shown(indexed[name][number])
    assert index == number, "the caller's array was written to"


@pytest.mark.parametrize("name", INDEXED)
@pytest.mark.parametrize("index", [5.0, np.float64(5), torch.tensor(5.0), "5", None])
def test_what_is_no_integer_is_no_index(indexed, name, index):
    with pytest.raises(TypeError, match=r"integer|indices"):
        indexed[name][index]
