"""The order of sources and rows: exact shares, every row once, each draw computed alone."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from vlmcollate.mixture.cycles import CYCLE, _floor_sum
from vlmcollate.mixture.schedule import Schedule
from vlmcollate.mixture.shuffling import shuffle_key, shuffled_index

WEIGHTS = st.lists(st.floats(0, 10), min_size=1, max_size=5).filter(any)


@given(weights=WEIGHTS, seed=st.integers(0, 99), start=st.integers(0, 10**9))
def test_every_draw_is_the_next_one_of_its_source(weights, seed, start):
    schedule = Schedule(tuple(weights), seed)
    counts = [schedule.count(source, start) for source in range(len(weights))]
    assert sum(counts) == start
    for draw in range(start, start + 40):
        source, before = schedule.source_at(draw)
        assert before == counts[source] == schedule.count(source, draw)
        assert schedule.find(source, before) == draw
        counts[source] += 1


@given(weights=WEIGHTS, seed=st.integers(0, 99), draws=st.integers(1, 10**7))
def test_shares_lie_within_a_binomial_bound(weights, seed, draws):
    schedule, whole = Schedule(tuple(weights), seed), math.fsum(weights)
    for source, weight in enumerate(weights):
        share = weight / whole
        deviation = math.sqrt(draws * share * (1 - share))
        assert abs(schedule.count(source, draws) - share * draws) <= 6 * deviation + 1
        # and at the end of a cycle within a few rows, however many draws there were
        rounded = draws // CYCLE * CYCLE
        assert abs(schedule.count(source, rounded) - share * rounded) <= 12


def test_a_weight_that_is_no_part_of_a_cycle_has_its_share():
    schedule = Schedule((1e-6, 1.0), 3)
    assert abs(schedule.count(0, 10**9) - 1000) <= 4
    assert Counter(Schedule((3, 7), 0).source_at(draw)[0] for draw in range(1000)) == {
        0: 300,
        1: 700,
    }


def test_a_source_of_weight_0_is_never_drawn():
    schedule = Schedule((0.0, 2.0, 0.0), 1)
    assert {schedule.source_at(draw)[0] for draw in range(2000)} == {1}
    assert schedule.count(0, 10**12) == schedule.count(2, 10**12) == 0


@given(
    count=st.integers(0, 30),
    divisor=st.integers(1, 20),
    factor=st.integers(0, 50),
    summand=st.integers(-60, 60),
)
def test_the_sum_of_floors_is_that_of_its_terms(count, divisor, factor, summand):
    terms = ((factor * i + summand) // divisor for i in range(count))
    assert _floor_sum(count, divisor, factor, summand) == sum(terms)


@given(size=st.integers(1, 300), seed=st.integers(0, 999))
def test_a_shuffled_order_holds_every_index_once(size, seed):
    key = shuffle_key(seed, "rows")
    order = [shuffled_index(place, size, key) for place in range(size)]
    assert sorted(order) == list(range(size))


def test_shuffled_orders_are_uniform():
    orders = Counter(
        tuple(shuffled_index(place, 3, shuffle_key(seed)) for place in range(3))
        for seed in range(6000)
    )
    assert len(orders) == 6
    chi_square = sum((count - 1000) ** 2 / 1000 for count in orders.values())
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001
    big = [shuffled_index(place, 10**12, shuffle_key(1)) for place in range(200)]
    assert len(set(big)) == 200
    assert 0.4e12 < sum(big) / 200 < 0.6e12
