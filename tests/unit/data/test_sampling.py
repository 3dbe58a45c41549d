"""Batches of similar lengths: every sample once, the same order for all, resumed anywhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from vlmcollate import ConfigError
from vlmcollate.data import BlockShuffledSampler, LengthGroupedSampler


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
    assert len(every) < len(lengths) + ranks
    if len(lengths) >= batch_size * ranks:  # a full batch has the longest, and comes first
        assert max(lengths) in [lengths[i] for d in drawn for i in d[:batch_size]]


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
def test_it_resumes_from_its_state(given_out: int) -> None:
    whole = LengthGroupedSampler(lengths=range(1, 21), batch_size=3, seed=5)
    two_epochs = [*whole, *whole]
    stopped = LengthGroupedSampler(lengths=range(1, 21), batch_size=3, seed=5)
    stream = iter(stopped)
    head = [next(stream) for _ in range(given_out)]
    resumed = LengthGroupedSampler(lengths=range(1, 21), batch_size=3, seed=5)
    resumed.load_state_dict(stopped.state_dict())
    assert [*head, *resumed, *resumed] == two_epochs


def test_an_interrupted_pass_restarts() -> None:
    sampler = LengthGroupedSampler(lengths=range(1, 101), batch_size=4)
    first = list(LengthGroupedSampler(lengths=range(1, 101), batch_size=4))
    rows: Any = range(100)
    loader: DataLoader[Any] = DataLoader(rows, batch_size=4, sampler=sampler, num_workers=2)
    next(iter(loader))  # a peek
    for _ in loader:
        break
    whole = [i for batch in loader for i in batch.tolist()]
    assert whole == first
    assert [i for batch in loader for i in batch.tolist()] != whole
    assert len(loader) == 25


def test_trainers_may_set_the_epoch_that_is_resumed() -> None:
    sampler = LengthGroupedSampler(lengths=range(1, 21), batch_size=3)
    whole = list(sampler)
    for epoch in (0, 1):
        resumed = LengthGroupedSampler(lengths=range(1, 21), batch_size=3)
        resumed.load_state_dict({**sampler.state_dict(), "epoch": 0, "given": 6})
        resumed.set_epoch(epoch)
        assert (list(resumed) == whole[6:]) == (epoch == 0)
        assert len(list(resumed)) == 20


def test_a_state_of_another_sampler_is_refused() -> None:
    options: dict[str, Any] = {"lengths": range(1, 21), "batch_size": 3}
    state = LengthGroupedSampler(**options).state_dict()
    assert json.loads(json.dumps(state)) == state
    others = {"lengths": range(2, 22), "batch_size": 4, "num_ranks": 2, "seed": 1}
    for name, value in others.items():
        with pytest.raises(ConfigError, match=f"another sampler: found {name}"):
            LengthGroupedSampler(**{**options, name: value}).load_state_dict(state)
    wrong: list[dict[str, Any]] = [{"given": 21}, {"epoch": -1}, {"given": None}]
    bad: Any
    for bad in [None, {}, *[{**state, **change} for change in wrong]]:
        with pytest.raises(ConfigError, match="state"):
            LengthGroupedSampler(**options).load_state_dict(bad)


def test_bad_options_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"rank": 1},
        {"rank": -1},
        {"batch_size": 0},
        {"lengths": []},
        {"lengths": [1.5]},
        {"lengths": ["a"]},
        {"lengths": [[1], [2, 3]]},
        {"seed": -1},
    ]
    for options in bad:
        with pytest.raises(ConfigError):
            LengthGroupedSampler(**{"lengths": [1], "batch_size": 1, **options})
    with pytest.raises(ConfigError, match="epoch must be"):
        LengthGroupedSampler(lengths=[1], batch_size=1).set_epoch(-1)


@given(
    samples=st.integers(1, 80),
    block=st.integers(1, 7),
    buffer=st.integers(1, 4),
    ranks=st.integers(1, 4),
    epoch=st.integers(0, 2),
)
def test_blocks_are_shared_and_resumed(samples, block, buffer, ranks, epoch):
    def sampler(rank: int) -> BlockShuffledSampler:
        made = BlockShuffledSampler(
            num_samples=samples,
            block_size=block,
            buffer_blocks=buffer,
            rank=rank,
            num_ranks=ranks,
            seed=5,
        )
        made.set_epoch(epoch)
        return made

    orders = [list(sampler(rank)) for rank in range(ranks)]
    assert {len(order) for order in orders} == {len(sampler(0))} == {-(-samples // ranks)}
    drawn = sorted(index for order in orders for index in order)
    assert set(drawn) == set(range(samples))
    assert len(drawn) - samples < ranks
    for stop in range(0, len(orders[0]), 3):
        stopped, resumed = sampler(ranks - 1), sampler(ranks - 1)
        stream = iter(stopped)
        head = [next(stream) for _ in range(stop)]
        resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
        assert head + list(resumed) == orders[-1]


def test_reads_of_blocks_are_nearly_sequential() -> None:
    sampler = BlockShuffledSampler(num_samples=10_000, block_size=50, buffer_blocks=4)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(10_000))
    for start in range(0, 10_000, 200):
        assert len({index // 50 for index in first[start : start + 200]}) == 4
    with pytest.raises(ConfigError, match="another sampler: found block_size 50, expected 25"):
        BlockShuffledSampler(num_samples=10_000, block_size=25).load_state_dict(
            {**sampler.state_dict(), "buffer_blocks": 64}
        )
    for options in ({"num_samples": 0}, {"block_size": 0}, {"buffer_blocks": 0}, {"rank": 1}):
        with pytest.raises(ConfigError):
            BlockShuffledSampler(**{"num_samples": 5, **options})
