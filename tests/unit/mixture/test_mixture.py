"""Mixtures of map-style datasets: epochs, lengths, and the draws of ranks and workers."""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tests.unit.mixture.sources import Numbers, numbers_mixture
from vlmcollate import ConfigError
from vlmcollate.mixture import Mixture


def rows_of(batch):
    return [row.row for row in batch]


def test_each_epoch_of_a_source_holds_every_row_once():
    mixture = numbers_mixture()
    found: dict[str, list[Any]] = {name: [] for name in mixture.names}
    for index in range(400):
        row, draw = mixture[index], mixture.draw(index)
        assert (row.source, row.index) == (draw.source, draw.index)
        assert row.row == row.index + (100 if row.source == "chat" else 0)
        found[row.source].append((draw.epoch, row.index))
    for name, size in (("charts", 7), ("chat", 23)):
        drawn = found[name]
        for epoch in range(len(drawn) // size):
            part = drawn[epoch * size : (epoch + 1) * size]
            assert sorted(part) == [(epoch, index) for index in range(size)]
    assert [i for _, i in found["charts"][:7]] != [i for _, i in found["charts"][7:14]]
    assert mixture.counts(400) == {name: len(drawn) for name, drawn in found.items()}


def test_a_draw_depends_on_the_seed_and_its_number_alone():
    mixture = numbers_mixture()
    forwards = [mixture.draw(index) for index in range(300)]
    again = pickle.loads(pickle.dumps(numbers_mixture()))
    assert [again.draw(index) for index in reversed(range(300))] == forwards[::-1]
    assert [numbers_mixture(seed=6).draw(index) for index in range(300)] != forwards
    assert rows_of(mixture)[:3] == [mixture[0].row, mixture[1].row, mixture[2].row]
    assert mixture[-1].row == mixture[len(mixture) - 1].row


def test_the_type_of_the_seed_changes_nothing():
    assert [m.draw(3) for m in (numbers_mixture(), numbers_mixture(seed=np.int64(5)))] == [
        numbers_mixture().draw(3)
    ] * 2
    json.dumps(numbers_mixture(seed=np.int64(5)).sampler().state_dict())


def test_adding_a_source_leaves_the_orders_of_the_others():
    two = numbers_mixture()
    three = Mixture({**two.sources, "more": (Numbers(900, 4), 0.5)}, seed=5)
    for name in two.names:
        first, second = (
            [m.draw(i).index for i in range(200) if m.draw(i).source == name][:14]
            for m in (two, three)
        )
        assert first == second


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=3), data=st.data())
def test_the_length_ends_where_a_source_would_start_again(sizes, data):
    weights = [data.draw(st.integers(1, 5)) for _ in sizes]
    sources = {
        f"s{k}": (Numbers(0, size), weight)
        for k, (size, weight) in enumerate(zip(sizes, weights, strict=True))
    }
    first = Mixture(sources, samples="first_exhausted")
    last = Mixture(sources, samples="all_exhausted")
    assert all(first.draw(index).epoch == 0 for index in range(len(first)))
    assert first.draw(len(first)).epoch == 1
    started = {draw.source for draw in map(last.draw, range(len(last) + 1)) if draw.epoch > 0}
    assert started == set(last.names)
    assert last.draw(len(last)).epoch == 1
    whole = {(row.source, row.index) for row in last}
    assert whole == {(f"s{k}", i) for k, size in enumerate(sizes) for i in range(size)}


def test_a_length_may_be_stated_and_rows_keep_their_order():
    assert len(numbers_mixture(samples=12)) == 12
    mixture = numbers_mixture(shuffle=False)
    charts = [row.index for row in mixture if row.source == "charts"]
    assert charts == sorted(charts)


@given(
    steps=st.lists(st.integers(0, 6), max_size=4),
    ranks=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    samples=st.integers(4, 30),
)
def test_any_numbers_of_ranks_draw_one_sequence(steps, ranks, samples):
    """A run that stops and goes on with other ranks loses no draw and makes none twice."""
    mixture = numbers_mixture(samples=samples)
    drawn, state = [], None
    for count, number in zip([*steps, 9], ranks, strict=False):
        samplers = [mixture.sampler(rank=rank, num_ranks=number) for rank in range(number)]
        streams = []
        for sampler in samplers:
            if state is not None:
                sampler.load_state_dict(json.loads(json.dumps(state)))
            streams.append(endless(sampler))
        for _ in range(count):
            drawn += [next(stream) for stream in streams]
        states = [sampler.state_dict() for sampler in samplers]
        assert all(found == states[0] for found in states)
        state = states[0]
    assert drawn == list(range(len(drawn)))
    assert state is None or state["position"] == len(drawn)


def endless(sampler):
    while True:
        yield from sampler


def test_it_resumes_at_every_step():
    mixture = numbers_mixture()
    whole = [*(sampler := mixture.sampler()), *sampler]
    for stop in range(len(mixture) + 3):
        first, second = mixture.sampler(), mixture.sampler()
        stream = endless(first)
        head = [next(stream) for _ in range(stop)]
        second.load_state_dict(first.state_dict())
        stream = endless(second)
        assert [*head, *(next(stream) for _ in range(len(whole) - stop))] == whole


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 4])
def test_workers_draw_the_same_batches(workers):
    mixture = numbers_mixture()
    expected = [rows_of([mixture[i] for i in range(k, k + 5)]) for k in range(0, 20, 5)]
    loader = DataLoader(
        mixture, batch_size=5, sampler=mixture.sampler(), collate_fn=rows_of, num_workers=workers
    )
    batches = iter(loader)
    assert [next(batches) for _ in expected] == expected


def test_every_rank_takes_the_same_number_and_epochs_follow_each_other():
    mixture = numbers_mixture(samples=10)
    samplers = [mixture.sampler(rank=rank, num_ranks=4) for rank in range(4)]
    first = [list(sampler) for sampler in samplers]
    for sampler in samplers:
        sampler.set_epoch(1)  # as trainers call it
    second = [list(sampler) for sampler in samplers]
    assert {len(drawn) for drawn in first} == {3} == {len(sampler) for sampler in samplers}
    assert {len(drawn) for drawn in second} == {2}  # the first two draws were made before
    both = sorted(index for drawn in (*first, *second) for index in drawn)
    assert both == list(range(20))


def test_an_interrupted_pass_restarts_and_an_epoch_may_be_set():
    sampler = numbers_mixture(samples=6).sampler()
    next(iter(sampler))
    assert list(sampler) == [0, 1, 2, 3, 4, 5]
    sampler.set_epoch(4)
    assert next(iter(sampler)) == 24
    sampler.load_state_dict(sampler.state_dict(position=27))
    sampler.set_epoch(4)  # of the state that was loaded
    assert list(sampler) == [27, 28, 29]


@pytest.mark.filterwarnings("ignore")  # torchdata warns about itself
@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_resumes_at_every_batch(workers):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")

    def loader():
        mixture = numbers_mixture(samples=12)
        return stateful.StatefulDataLoader(
            mixture,
            batch_size=4,
            sampler=mixture.sampler(),
            collate_fn=rows_of,
            num_workers=workers,
        )

    first = loader()
    whole = [*first, *first]
    for stop in (1, 2, 4) if workers else range(1, 6):
        first = loader()
        passes = (batch for _ in range(2) for batch in first)
        head = [next(passes) for _ in range(stop)]
        second = loader()
        second.load_state_dict(first.state_dict())
        rest = [*second, *second]
        assert [*head, *rest][: len(whole)] == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "found seed 6, expected 5"),
        ({"shuffle": False}, "found shuffle False, expected True"),
        ({"weights": (0.4, 0.6)}, "found sources .*0.4"),
    ],
)
def test_the_state_of_another_mixture_is_refused(change, message):
    weights = change.pop("weights", (0.3, 0.7))
    sources = {
        "charts": (Numbers(0, 7), weights[0]),
        "chat": (Numbers(100, 23), weights[1]),
    }
    other = Mixture(sources, **{"seed": 5, **change})
    with pytest.raises(ConfigError, match=message):
        numbers_mixture().sampler().load_state_dict(other.sampler().state_dict())


def test_the_order_of_the_sources_belongs_to_the_state():
    mixture = numbers_mixture()
    turned = Mixture(dict(reversed(mixture.sources.items())), seed=5)
    assert [turned.draw(k) for k in range(20)] != [mixture.draw(k) for k in range(20)]
    state = json.loads(json.dumps(mixture.sampler().state_dict(position=8), sort_keys=True))
    mixture.sampler().load_state_dict(state)
    with pytest.raises(ConfigError, match=r"found sources \['charts', 0.3, 7\], expected \['chat'"):
        turned.sampler().load_state_dict(state)


def test_a_thousand_sources_cost_little_more_than_a_few():
    def seconds(mixture):
        started = time.thread_time()
        for draw in range(0, 30_000, 100):  # each is in another cycle
            mixture.draw(draw)
        return time.thread_time() - started

    few, many = (
        Mixture({f"{k}": (range(9), k + 1) for k in range(size)}, seed=1) for size in (3, 1000)
    )
    assert seconds(many) < 50 * seconds(few)


@pytest.mark.parametrize("state", [None, 3, {}, {"position": 3}, {"mixture": {}, "position": 1}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ConfigError, match="the state is of"):
        numbers_mixture().sampler().load_state_dict(state)


def test_a_thousand_draws_hold_the_exact_shares():
    assert Counter(row.source for row in numbers_mixture(samples=1000)) == {
        "charts": 300,
        "chat": 700,
    }
