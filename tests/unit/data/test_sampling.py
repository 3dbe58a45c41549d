"""Batches of similar lengths: every sample once, the same order for all, resumed anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmcollate import ConfigError
from vlmcollate.data import LengthGroupedSampler


@given(
    lengths=st.lists(st.integers(1, 99), min_size=1, max_size=60),
    batch_size=st.integers(1, 5),
    ranks=st.integers(1, 3),
)
def test_ranks_share_every_sample(lengths: list[int], batch_size: int, ranks: int) -> None:
    samplers = [
        LengthGroupedSampler(lengths=lengths, batch_size=batch_size, rank=r, num_ranks=ranks)
        for r in range(ranks)
    ]
    drawn = [list(sampler) for sampler in samplers]
    assert {len(d) for d in drawn} == {len(samplers[0])}
    every = sorted(i for d in drawn for i in d)
    assert set(every) == set(range(len(lengths)))
    step = batch_size * ranks
    assert len(every) == -(-len(lengths) // step) * step


def test_batches_hold_similar_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 4096, 4000)
    order = list(LengthGroupedSampler(lengths=lengths, batch_size=8, seed=3))
    grouped = lengths[order].reshape(-1, 8)
    waste = 1 - grouped.sum() / (grouped.max(axis=1) * 8).sum()
    assert waste < 0.05
    assert grouped[0].max() == lengths.max()


def test_epochs_differ_and_seeds_repeat() -> None:
    sampler = LengthGroupedSampler(lengths=range(1, 40), batch_size=2)
    first, second = list(sampler), list(sampler)
    assert first != second
    again = LengthGroupedSampler(lengths=range(1, 40), batch_size=2)
    again.set_epoch(1)
    assert list(again) == second


@pytest.mark.parametrize("given_out", [0, 1, 7, 20])
def test_it_goes_on_where_it_stood(given_out: int) -> None:
    whole = LengthGroupedSampler(lengths=range(1, 21), batch_size=3, seed=5)
    two_epochs = [*whole, *whole]
    stopped = LengthGroupedSampler(lengths=range(1, 21), batch_size=3, seed=5)
    stream = iter(stopped)
    head = [next(stream) for _ in range(given_out)]
    resumed = LengthGroupedSampler(lengths=range(1, 21), batch_size=3, seed=5)
    resumed.load_state_dict(stopped.state_dict())
    assert [*head, *resumed, *resumed] == two_epochs


def test_bad_options_are_refused() -> None:
    bad: list[dict[str, Any]] = [{"rank": 1}, {"batch_size": 0}, {"lengths": []}]
    for options in bad:
        with pytest.raises(ConfigError):
            LengthGroupedSampler(**{"lengths": [1], "batch_size": 1, **options})
    with pytest.raises(ConfigError, match="seed 1"):
        LengthGroupedSampler(lengths=[1], batch_size=1).load_state_dict(
            {"seed": 1, "epoch": 0, "given": 0}
        )
