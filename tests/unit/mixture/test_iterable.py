"""Mixtures with streams: shares, workers, ranks and states."""

from __future__ import annotations

import copy
import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tests.unit.mixture.sources import Numbers, numbers_mixture
from vlmcollate import ConfigError
from vlmcollate.mixture import IterableMixture


class Stream:
    """An iterable with a state of its own."""

    def __init__(self, size: int) -> None:
        self.size, self.done, self.starts = size, 0, 0
        self.epochs: list[int] = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        start, self.starts = self.starts, 0
        for row in range(start, self.size):
            self.done = row + 1
            yield row

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.starts = state["done"]


def streams_mixture(**options):
    sources = {
        "charts": (Numbers(0, 7), 0.3),
        "web": (Stream(11), 0.4),
        "logs": (lambda: iter(range(5)), 0.3),
    }
    return IterableMixture(sources, **{"seed": 5, "samples": 60, **options})


def found(mixture, limit=None):
    return [(row.source, row.index, row.row) for row in islice(mixture, limit)]


def test_map_style_sources_are_drawn_as_in_a_mixture():
    fixed = numbers_mixture()
    streamed = IterableMixture(fixed.sources, seed=5)
    assert found(streamed) == found(fixed)
    last = numbers_mixture(samples="all_exhausted")
    assert found(IterableMixture(fixed.sources, seed=5, samples="all_exhausted")) == found(last)


def test_a_stream_keeps_its_order_and_starts_again():
    rows = found(streams_mixture())
    assert len(rows) == 60
    for name, size in (("web", 11), ("logs", 5)):
        drawn = [row for source, _, row in rows if source == name]
        assert drawn == [k % size for k in range(len(drawn))]
        assert len(drawn) > size


def test_a_stream_gets_the_number_of_each_epoch():
    mixture = streams_mixture(samples=80)
    mixture.set_epoch(4)
    found(mixture)
    assert mixture.sources["web"].dataset.epochs == [4, 5, 6, 7]


def test_the_epoch_ends_where_a_stream_would_start_again():
    first = found(streams_mixture(samples="first_exhausted"))
    last = found(streams_mixture(samples="all_exhausted"))
    whole = found(streams_mixture(samples=200))
    assert first == whole[: len(first)]
    assert last == whole[: len(last)]
    for drawn, ended in ((first, any), (last, all)):
        within = [count <= size for count, size in _counts(drawn)]
        after = [count > size for count, size in _counts(whole[: len(drawn) + 1])]
        assert ended(after)
        assert not ended(not fits for fits in within)


def _counts(drawn):
    sizes = {"charts": 7, "web": 11, "logs": 5}
    return [(sum(row[0] == name for row in drawn), size) for name, size in sizes.items()]


def test_it_resumes_at_every_step_and_from_the_state_of_a_stream():
    whole = found(streams_mixture())
    for stop in range(0, 61, 3):
        first, second = streams_mixture(), streams_mixture()
        head = found(first, stop)
        state = json.loads(json.dumps(first.state_dict()))
        second.load_state_dict(state)
        assert [*head, *found(second)] == whole
        assert found(second) == whole  # the next pass starts from the start


@pytest.mark.parametrize("samples", ["first_exhausted", "all_exhausted"])
def test_it_resumes_to_the_same_end(samples):
    whole = found(streams_mixture(samples=samples))
    for stop in range(len(whole) + 1):
        first, second = streams_mixture(samples=samples), streams_mixture(samples=samples)
        head = found(first, stop)
        second.load_state_dict(first.state_dict())
        assert [*head, *found(second)] == whole


def test_the_state_behind_an_epoch_starts_the_next_one():
    first, second = streams_mixture(), streams_mixture()
    whole = found(first)
    second.load_state_dict(first.state_dict())
    assert [*found(second), *found(second)] == whole


@given(stop=st.integers(0, 12), before=st.integers(1, 4), after=st.integers(1, 4))
def test_another_number_of_ranks_loses_no_row_and_doubles_none(stop, before, after):
    whole = found(streams_mixture(samples=48))
    drawn, states = [], []
    for rank in range(before):
        mixture = streams_mixture(samples=48, rank=rank, num_ranks=before)
        drawn += found(mixture, min(stop, 48 // before))
        states.append(mixture.state_dict())
    position = len(drawn)
    rest = []
    for rank in range(after):
        mixture = streams_mixture(samples=48, rank=rank, num_ranks=after)
        mixture.load_state_dict(states[0])
        rest += found(mixture)
    assert sorted(drawn) == sorted(whole[:position])
    missing = sorted(whole[position:])
    assert len(rest) - len(missing) < after  # rounded up, so that ranks draw the same number
    expected = found(streams_mixture(samples=position + len(rest)))
    assert sorted([*drawn, *rest]) == sorted(expected)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_draw_the_same_rows(workers):
    loader = DataLoader(streams_mixture(), batch_size=None, collate_fn=None, num_workers=workers)
    drawn = [(row.source, row.index, row.row) for row in loader]
    assert sorted(drawn) == sorted(found(streams_mixture()))


@pytest.mark.parametrize("copied", [lambda mixture: mixture, copy.deepcopy])
def test_persistent_workers_take_the_epoch_that_is_set(copied):
    mixture, alone = copied(streams_mixture(samples=24)), streams_mixture(samples=24)
    loader = DataLoader(
        mixture, batch_size=None, collate_fn=None, num_workers=2, persistent_workers=True
    )
    for epoch in (0, 2, 1):
        mixture.set_epoch(np.int64(epoch))
        alone.set_epoch(epoch)
        assert sorted((row.source, row.index, row.row) for row in loader) == sorted(found(alone))
    assert json.loads(json.dumps(mixture.state_dict()))["epoch"] == 1


@pytest.mark.filterwarnings("ignore")  # torchdata warns about itself
@pytest.mark.parametrize(("workers", "stops"), [(0, range(9)), (2, (1, 8))])
def test_torchdata_resumes(workers, stops):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")

    def loader():
        return stateful.StatefulDataLoader(
            streams_mixture(samples=23), batch_size=3, collate_fn=_plain, num_workers=workers
        )

    whole = list(loader())
    for stop in stops:
        first, second = loader(), loader()
        head = list(islice(first, stop))
        second.load_state_dict(first.state_dict())
        assert [*head, *second] == whole
        assert list(second) == whole


def _plain(rows):
    return [(row.source, row.index, row.row) for row in rows]


def test_streams_of_hugging_face_datasets_resume_and_share_their_rows():
    datasets = pytest.importorskip("datasets", reason="needs datasets")

    def mixture():
        rows = datasets.Dataset.from_dict({"x": list(range(12))})
        web = rows.to_iterable_dataset(num_shards=4).shuffle(seed=1, buffer_size=1)
        return IterableMixture({"charts": (Numbers(0, 7), 1), "web": (web, 2)}, samples=40)

    whole = found(mixture())
    for stop in (0, 5, 17, 25, 39):
        first, second = mixture(), mixture()
        head = found(first, stop)
        second.load_state_dict(first.state_dict())
        assert [*head, *found(second)] == whole
    web = [row["x"] for source, _, row in whole if source == "web"]
    assert sorted(web[:12]) == sorted(web[12:24]) == list(range(12))
    loader = DataLoader(mixture(), batch_size=None, num_workers=2)
    drawn = [row for row in loader if row.source == "web"]
    assert len(drawn) == len(web)
    assert {row.row["x"] for row in drawn} == set(range(12))


def test_a_stream_that_distributes_its_rows_needs_the_same_ranks():
    datasets = pytest.importorskip("datasets", reason="needs datasets")
    from datasets.distributed import split_dataset_by_node

    web = datasets.Dataset.from_dict({"x": list(range(12))}).to_iterable_dataset(num_shards=4)
    with pytest.raises(ConfigError, match="gives all 2 ranks the same rows; pass split_data"):
        IterableMixture({"web": (web, 1)}, num_ranks=2)
    parts = [split_dataset_by_node(web, rank, 2) for rank in range(2)]
    ranks = [
        IterableMixture({"web": (part, 1)}, samples=12, rank=rank, num_ranks=2)
        for rank, part in enumerate(parts)
    ]
    drawn = [row["x"] for mixture in ranks for _, _, row in found(mixture)]
    assert sorted(drawn) == list(range(12))
    next(iter(ranks[0]))
    one = IterableMixture({"web": (web, 1)}, samples=12)
    one.load_state_dict(ranks[0].state_dict())
    with pytest.raises(ConfigError, match="the state is of 2 workers of all ranks, found 1"):
        next(iter(one))


def test_each_epoch_has_orders_of_its_own():
    mixture = streams_mixture()
    first = found(mixture)
    mixture.set_epoch(1)
    second = found(mixture)
    assert first != second
    mixture.set_epoch(0)
    assert found(mixture) == first
    mixture.set_epoch(1)
    head = found(mixture, 20)
    resumed = streams_mixture()
    resumed.load_state_dict(mixture.state_dict())
    resumed.set_epoch(1)  # as trainers call it
    assert [*head, *found(resumed)] == second


class Split(IterableDataset[int]):
    """Gives each worker every n-th of its rows, as streams of `datasets` and WebDataset do."""

    def __init__(self, rows) -> None:
        self.rows = rows

    def __iter__(self):
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return islice(self.rows, number, None, workers)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_function_may_return_a_stream_that_distributes_its_rows(workers):
    mixture = IterableMixture({"web": (lambda: Split(range(12)), 1)}, seed=1)
    loader = DataLoader(mixture, batch_size=None, num_workers=workers)
    assert sorted(row.row for row in loader) == list(range(12))


def test_such_a_stream_resumes_with_the_same_workers_alone():
    def make():
        return IterableMixture({"web": (lambda: Split(range(12)), 1)}, seed=1)

    mixture = make()
    rows = iter(mixture)
    assert [next(rows).row for _ in range(5)] == [0, 1, 2, 3, 4]
    state = json.loads(json.dumps(mixture.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert [row.row for row in resumed] == list(range(5, 12))
    other = make()
    other.load_state_dict(state)
    with pytest.raises(ConfigError, match="distributes its rows itself"):
        next(iter(DataLoader(other, batch_size=None, num_workers=2)))


def test_a_stream_in_another_order_is_not_resumed():
    def make(rows):
        return IterableMixture({"web": (lambda: iter(rows), 1)}, seed=1, samples=20)

    mixture = make([3, 1, 2, 0])
    rows = iter(mixture)
    for _ in range(6):
        next(rows)
    state = mixture.state_dict()
    resumed = make([3, 1, 0, 2])  # which begins alike
    resumed.load_state_dict(state)
    assert [row.row for row in islice(resumed, 3)] == [0, 2, 3]
    again = resumed.state_dict()
    for order in ([1, 3, 0, 2], [2, 1, 0, 3]):
        other = make(order)
        other.load_state_dict(state)
        with pytest.raises(ConfigError, match="another order than when the state was saved"):
            next(iter(other))
    del state["streams"]["web"]["digest"]
    random = make([1, 3, 0, 2])
    random.load_state_dict(state)
    assert next(iter(random)).row == 0
    assert again["streams"]["web"]["done"] == 1
