"""A bad sample is left out or replaced, counted, and never hidden for ever."""

import pickle

import pytest
import torch

from vlmcollate import (
    IGNORE_INDEX,
    ConfigError,
    EmptyBatchError,
    MediaError,
    RobustCollator,
    TooManyFailuresError,
    collator_for,
    resample,
)
from vlmcollate.testing import tiny_processor


def chat(answer):
    return [{"role": "user", "content": "What?"}, {"role": "assistant", "content": answer}]


def bad(name="missing.png"):
    part = {"type": "image", "image": f"/nowhere/{name}"}
    return [{"role": "user", "content": [part]}, {"role": "assistant", "content": "x"}]


@pytest.fixture
def collator():
    return collator_for(tiny_processor())


def robust(collator, on_error, **options):
    return RobustCollator(collator=collator, on_error=on_error, **options)


def test_skip_leaves_the_bad_one_out(collator):
    batch = robust(collator, "skip")([chat("one"), bad(), chat("three")])
    expected = collator([chat("one"), chat("three")])
    assert batch.pop("n_failed_samples").item() == 1
    for key, value in expected.items():
        assert torch.equal(batch[key], value)


def test_placeholder_keeps_the_rows_and_trains_nothing(collator):
    batch = robust(collator, "placeholder")([bad(), chat("two")])
    alone = collator([chat("two")])
    assert batch["n_failed_samples"].item() == 1
    assert batch["input_ids"].shape == (2, alone["input_ids"].shape[1])
    assert (batch["labels"][0] == IGNORE_INDEX).all()
    assert batch["attention_mask"][0].sum() == 1
    assert torch.equal(batch["labels"][1], alone["labels"][0])


def test_resample_draws_the_same_everywhere(collator):
    dataset = [chat(f"answer {i}") for i in range(50)]
    policy = resample(dataset, seed=5)
    first = robust(collator, policy)([bad("a"), bad("b"), dataset[0]])
    again = robust(collator, pickle.loads(pickle.dumps(policy)))([bad("b"), bad("a"), dataset[0]])
    assert first["n_failed_samples"].item() == 2
    assert torch.equal(first["input_ids"][0], again["input_ids"][1])
    assert torch.equal(first["input_ids"][1], again["input_ids"][0])
    other = resample(dataset, seed=6)
    assert [policy.draws(bad(str(i))) for i in range(9)] != [
        other.draws(bad(str(i))) for i in range(9)
    ]
    assert len({policy.draws(bad(str(i)))[0] for i in range(60)}) > 20


def test_resample_gives_up_with_the_cause(collator):
    policy = resample([bad(str(i)) for i in range(5)], max_retries=3)
    with pytest.raises(TooManyFailuresError, match="3 other samples failed") as raised:
        robust(collator, policy)([bad("first")])
    assert isinstance(raised.value.__cause__, MediaError)


def test_failures_in_a_row_are_counted_over_batches(collator):
    patient = robust(collator, "skip", max_failures=3)
    for _ in range(5):  # never more than two in a row
        patient([bad(), chat("a"), bad()])
    patient([bad(), chat("a"), bad(), bad(), bad()])
    with pytest.raises(TooManyFailuresError, match="4 samples in a row"):
        patient([bad(), chat("a")])


def test_a_batch_of_failures_is_an_error(collator):
    for on_error in ("skip", "placeholder"):
        with pytest.raises(EmptyBatchError):
            robust(collator, on_error)([bad(), bad()])


def test_raise_passes_on(collator):
    with pytest.raises(MediaError) as raised:
        robust(collator, "raise")([chat("a"), bad()])
    assert raised.value.index == 1
    assert robust(collator, "raise")([chat("a")])["n_failed_samples"].item() == 0


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, RecursionError])
def test_system_errors_are_not_swallowed(collator, error, monkeypatch):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(type(collator.media), "load_image", broken)
    with pytest.raises(error):
        robust(collator, "skip")([bad(), chat("a")])


def test_wrong_options_are_refused(collator):
    with pytest.raises(ConfigError, match="on_error"):
        robust(collator, "ignore")
    with pytest.raises(ConfigError, match="max_failures"):
        robust(collator, "skip", max_failures=0)
    with pytest.raises(ConfigError, match="collator"):
        robust(collator.processor, "skip")
