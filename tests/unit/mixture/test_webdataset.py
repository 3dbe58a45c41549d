"""The real WebDataset as a stream of a mixture: workers, ranks, states, and its mistakes."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vlmcollate import ConfigError, collator_for
from vlmcollate.errors import ConversationError, SourceError
from vlmcollate.mixture import IterableMixture
from vlmcollate.testing import tiny_processor

wds = pytest.importorskip("webdataset", reason="pip install webdataset; it leaves its files open")
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SHARDS, ROWS = 4, 5
CHATS = [
    [{"role": "user", "content": f"Chat {k}?"}, {"role": "assistant", "content": "Yes."}]
    for k in range(40)
]


@pytest.fixture(autouse=True)
def _close_files():
    """Closes the files that WebDataset leaves open, before the warnings are errors again."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(SHARDS):
        with wds.TarWriter(str(folder / f"{shard:03}.tar")) as writer:
            for k in range(shard * ROWS, shard * ROWS + ROWS):
                turns = [
                    {"from": "human", "value": f"<image>What is {k}?"},
                    {"from": "gpt", "value": f"Number {k}."},
                ]
                shown = Image.new("RGB", (56, 56 + 28 * (k % 2)), (10 * k, 90, 7))
                writer.write({"__key__": f"{k:03}", "png": shown, "json": {"conversations": turns}})
    return f"{folder}/{{000..{SHARDS - 1:03}}}.tar"


def row_of(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample["json"], "images": [sample["png"]]}


def dataset(urls, **options):
    given = {"shardshuffle": False, **options}
    return wds.WebDataset(urls, **given).decode("pil").map(row_of)


def mixture(web, **options):
    given = {"seed": 1, "samples": 2 * SHARDS * ROWS, **options}
    return IterableMixture({"web": (web, 0.5), "chats": (CHATS, 0.5)}, **given)


def numbers(rows):
    """Returns the number of each row of the shards."""
    said = [row.row["conversations"][1]["value"] for row in rows if row.source == "web"]
    return [int(text.removeprefix("Number ").removesuffix(".")) for text in said]


def itself(rows):
    return rows


@pytest.mark.parametrize("workers", [0, 2, 4])
@pytest.mark.parametrize("is_function", [False, True])
def test_every_row_is_read_once(urls, workers, is_function):
    web = partial(dataset, urls) if is_function else dataset(urls)
    mixed = IterableMixture({"web": (web, 1)}, seed=1)
    loader = DataLoader(mixed, batch_size=None, num_workers=workers, collate_fn=itself)
    assert sorted(numbers(loader)) == list(range(SHARDS * ROWS))


def test_batches_are_those_of_the_rows(urls):
    mixed, plain = mixture(dataset(urls)), collator_for(tiny_processor())
    collate = mixed.collator(plain)
    batches = list(DataLoader(mixed, batch_size=8, num_workers=1, collate_fn=collate))
    rows = [row.row for row in mixed]
    assert len(batches) == 5
    for place, batch in enumerate(batches):
        expected = plain(rows[8 * place : 8 * place + 8])
        assert batch.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(batch[key], value)


@pytest.mark.parametrize("is_shuffled", [False, True])
@pytest.mark.parametrize("done", [1, 13, 40, 66])
def test_a_run_resumes_where_it_ended(urls, is_shuffled, done):
    def make():
        if not is_shuffled:
            return dataset(urls)
        return dataset(urls, shardshuffle=10, seed=3).shuffle(8, seed=1)

    whole = numbers(mixture(make(), samples=80))
    mixed = mixture(make(), samples=80)
    rows = iter(mixed)
    before = [next(rows) for _ in range(done)]
    state = mixed.state_dict()
    resumed = mixture(make(), samples=80)
    resumed.load_state_dict(state)
    assert numbers(before) + numbers(resumed) == whole


@pytest.mark.parametrize("chosen", ["shardshuffle", "shuffle", "detshuffle", "resampled"])
def test_an_order_that_does_not_repeat_is_not_resumed(urls, chosen):
    def make():
        if chosen == "shardshuffle":
            return dataset(urls, shardshuffle=10)
        if chosen == "resampled":
            return dataset(urls, resampled=True)
        if chosen == "shuffle":
            return dataset(urls).shuffle(20, initial=20)
        return dataset(urls, shardshuffle=10, detshuffle=True, seed=3)

    for _ in range(9):  # two orders may begin alike by chance, and then no row is lost
        mixed = mixture(make(), samples=80)
        rows = iter(mixed)
        found = [next(rows) for _ in range(66)]
        resumed = mixture(make(), samples=80)
        resumed.load_state_dict(mixed.state_dict())
        try:
            numbers(found) + numbers(resumed)
        except ConfigError as error:
            assert "source 'web' is in another order than when the state was saved" in str(error)
            return
    pytest.fail("every order was resumed")


def test_ranks_that_would_read_the_same_are_refused(urls, monkeypatch):
    for web in (dataset(urls), partial(dataset, urls)):
        with pytest.raises(ConfigError, match="gives all 2 ranks the same rows; pass nodesplitter"):
            list(mixture(web, rank=1, num_ranks=2))
    found = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        web = dataset(urls, nodesplitter=wds.split_by_node)
        mixed = IterableMixture({"web": (web, 1)}, seed=1, rank=rank, num_ranks=2)
        found.append(numbers(mixed))
    assert [len(rows) for rows in found] == [10, 10]
    assert sorted(found[0] + found[1]) == list(range(SHARDS * ROWS))


def test_more_workers_than_shards_are_refused(urls):
    loader = DataLoader(mixture(dataset(urls)), batch_size=None, num_workers=5, collate_fn=itself)
    with pytest.raises(SourceError, match=r"source 'web'.*fewer shards than workers"):
        list(loader)


def test_undecoded_samples_are_refused_by_name(urls):
    mixed = mixture(wds.WebDataset(urls, shardshuffle=False))
    collate = mixed.collator(collator_for(tiny_processor()))
    with pytest.raises(ConversationError, match=r"row 0 of the source 'web'") as raised:
        collate([row for row in mixed if row.source == "web"][:1])
    assert "'__key__', '__local_path__', '__url__', 'json', 'png'" in str(raised.value)
