"""Sources and weights that cannot be mixed: a named error each."""

from __future__ import annotations

import math
import pickle
import re

import pytest
from torch.utils.data import DataLoader, IterableDataset

from tests.unit.mixture.sources import Numbers, numbers_mixture
from vlmcollate import ConfigError
from vlmcollate.errors import CollateError, SourceError
from vlmcollate.mixture import IterableMixture, Mixture

ROWS = Numbers(0, 3)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "sources is wrong: found {}"),
        ([ROWS], "sources is wrong"),
        ({"a": ROWS}, "source 'a' is wrong: found Numbers, expected (dataset, weight)"),
        ({3: (ROWS, 1)}, "the name of a source is wrong: found 3"),
        ({"a": (ROWS, 0), "b": (ROWS, 0.0)}, "the weights of the sources sum to 0"),
        ({"a": (ROWS, -0.1), "b": (ROWS, 1)}, "the weight of source 'a' is wrong: found -0.1"),
        ({"a": (ROWS, math.nan)}, "the weight of source 'a' is wrong: found nan"),
        ({"a": (ROWS, math.inf)}, "the weight of source 'a' is wrong: found inf"),
        ({"a": (ROWS, 10**400)}, "the weight of source 'a' is wrong: found 1000"),
        ({"a": (ROWS, True)}, "the weight of source 'a' is wrong: found True"),
        ({"a": (ROWS, "0.5")}, "the weight of source 'a' is wrong: found '0.5'"),
        ({"a": (ROWS, 1e-30), "b": (ROWS, 1)}, "the weight of source 'a' is too small beside"),
        ({"a": ([], 1)}, "source 'a' has no rows"),
        ({"a": ("rows.jsonl", 1)}, "source 'a' is wrong: found str"),
        ({"a": ({"train": ROWS}, 1)}, "source 'a' is wrong: found dict"),
        ({"a": (numbers_mixture(), 1)}, "source 'a' is a mixture"),
    ],
)
@pytest.mark.parametrize("kind", [Mixture, IterableMixture])
def test_wrong_sources_and_weights_are_refused(kind, sources, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kind(sources)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be an integer of at least 0"),
        ({"samples": 0}, "samples must be an integer of at least 1"),
        ({"samples": "first"}, "samples must be a number or one of"),
        ({"shuffle": 1}, "shuffle must be a bool"),
        ({"per_source": {"chart": {}}}, "found 'chart', expected one of ['charts'"),
        ({"per_source": {"chart": {}}}, "did you mean 'charts'?"),
        ({"per_source": 3}, "per_source is wrong: found 3"),
        (
            {"per_source": {"chat": {"min_pixels": 9, "max_pixels": 4}}},
            "per_source['chat']: sets min_pixels=9 above max_pixels=4",
        ),
    ],
)
@pytest.mark.parametrize("kind", [Mixture, IterableMixture])
def test_wrong_options_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kind({"charts": (ROWS, 1), "chat": (ROWS, 2)}, **options)


@pytest.mark.parametrize("options", [{"rank": 2, "num_ranks": 2}, {"rank": -1}, {"num_ranks": 0}])
def test_ranks_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="rank"):
        numbers_mixture().sampler(**options)
    with pytest.raises(ConfigError, match="rank"):
        IterableMixture({"a": (ROWS, 1)}, **options)


def test_a_stream_belongs_to_an_iterable_mixture():
    with pytest.raises(ConfigError, match="mix streams with IterableMixture"):
        Mixture({"a": (iter([1]), 1)})
    with pytest.raises(ConfigError, match="expected a dataset, an iterable of rows, or"):
        IterableMixture({"a": (3, 1)})


class Faulty(Numbers):
    def __getitem__(self, index):
        if index == 2:
            raise KeyError("no image")
        return super().__getitem__(index)


class Ended(Numbers):
    def __getitem__(self, index):
        raise StopIteration


def test_an_error_that_ends_loops_loses_no_row():
    with pytest.raises(SourceError, match=r"source 'a' failed at row \d: StopIteration"):
        list(Mixture({"a": (Ended(0, 3), 1)}))


class Exhausting(Numbers):
    def __getitem__(self, index):
        raise MemoryError


def test_a_lack_of_memory_passes_through():
    with pytest.raises(MemoryError):
        Mixture({"a": (Exhausting(0, 3), 1)})[0]


def test_a_stream_has_one_name():
    stream = iter([1])
    with pytest.raises(ConfigError, match="sources 'a' and 'b' are one stream"):
        IterableMixture({"a": (stream, 1), "b": (stream, 1)})


class Sized(IterableDataset[int]):
    """An iterable dataset with a length, which has no rows by number."""

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(range(3))


def test_an_iterable_dataset_with_a_length_is_a_stream():
    with pytest.raises(ConfigError, match="mix streams with IterableMixture"):
        Mixture({"a": (Sized(), 1)})
    assert [row.row for row in IterableMixture({"a": (Sized(), 1)}, samples=5)] == [0, 1, 2, 0, 1]


def _faulty_stream():
    yield 0
    yield 1
    raise OSError("the disk is gone")


def test_a_source_that_raises_is_named_with_its_row():
    mixture = Mixture({"charts": (Faulty(0, 3), 1)})
    with pytest.raises(SourceError, match="source 'charts' failed at row 2: KeyError: 'no image'"):
        list(mixture)
    streamed = IterableMixture({"charts": (Faulty(0, 3), 1)})
    with pytest.raises(SourceError, match="source 'charts' failed at row 2") as caught:
        list(streamed)
    assert isinstance(caught.value.__cause__, KeyError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), CollateError)
    web = IterableMixture({"web": (_faulty_stream, 1)}, samples=9)
    with pytest.raises(SourceError, match="'web' failed at row 2: OSError: the disk is gone"):
        list(web)
    loader = DataLoader(mixture, batch_size=None, num_workers=1)
    with pytest.raises(SourceError, match="source 'charts' failed at row 2"):
        list(loader)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([].__iter__, "source 'a' has no rows"),
        (lambda: 3, "found a function that returns int"),
        (iter([1, 2]), "is an iterator that was read before"),
    ],
)
def test_a_stream_that_does_not_start_again_is_refused(stream, message):
    with pytest.raises(ConfigError, match=message):
        list(IterableMixture({"a": (stream, 1)}, samples=9))


def test_a_stream_that_became_shorter_is_refused():
    long = IterableMixture({"a": (lambda: iter(range(9)), 1)})
    stream = iter(long)
    for _ in range(6):
        next(stream)
    short = IterableMixture({"a": (lambda: iter(range(4)), 1)})
    short.load_state_dict(long.state_dict())
    with pytest.raises(ConfigError, match="ended after 4 rows, but the state was saved after"):
        list(short)
    with pytest.raises(ConfigError, match="the state is of no mixture"):
        short.load_state_dict({})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": None}, "the state's epoch must be an integer of at least 0"),
        ({"shards": "2"}, "the state's shards must be an integer of at least 0"),
        ({"streams": {"a": {}}}, "the state's epoch must be an integer of at least 0"),
        ({"streams": {"a": None}}, "the state's epoch must be an integer of at least 0"),
        ({"streams": {}}, "the state has no place in the stream 'a': found streams={}"),
        ({"streams": 3}, "the state has no place in the stream 'a': found streams=3"),
    ],
)
def test_a_damaged_state_of_streams_is_refused(change, message):
    mixture = IterableMixture({"a": (lambda: [1, 2], 1)})
    next(iter(mixture))
    state = {**mixture.state_dict(), **change}
    with pytest.raises(ConfigError, match=message):
        mixture.load_state_dict(state)
