"""The example scripts do what they say, on a tiny model."""

from __future__ import annotations

import importlib

import pytest
import torch

from examples import dataloader, other_objectives, packed
from tests.conftest import NIGHTLY


def falls(losses):
    assert all(loss == loss for loss in losses)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.filterwarnings("ignore")  # trainers warn about themselves
@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("hf_trainer", "accelerate"),
        ("hf_trainer_streaming", "accelerate"),
        ("trl_sft", "trl"),
        ("lightning_module", "lightning"),
    ],
)
def test_a_trainer_learns(name, package):
    pytest.importorskip(package, reason=f"the extra vlmcollate[examples] installs {package}")
    falls(importlib.import_module(f"examples.{name}").main())


@pytest.mark.filterwarnings("ignore")  # trainers warn about themselves
def test_a_trainer_compares_what_it_generates():
    pytest.importorskip("accelerate", reason="the extra vlmcollate[examples] installs accelerate")
    generation = importlib.import_module("examples.hf_trainer_generation")
    before, after = generation.main(steps=30)
    assert before["eval_answers"] == after["eval_answers"] == 6
    assert after["eval_right"] > before["eval_right"]
    falls([before["eval_loss"], after["eval_loss"]])


@pytest.mark.filterwarnings("ignore")  # trainers warn about themselves
def test_a_dispatcher_of_batches_cuts_the_images():
    """Which is why the example turns it off; once this fails, the docs need not say so."""
    pytest.importorskip("accelerate", reason="the extra vlmcollate[examples] installs accelerate")
    streaming = importlib.import_module("examples.hf_trainer_streaming")
    with pytest.raises(IndexError):
        streaming.main(2, dispatch_batches=True)


@pytest.mark.filterwarnings("ignore")  # trainers warn about themselves
def test_rollouts_train_the_tokens_that_were_sampled():
    pytest.importorskip("trl", reason="the extra vlmcollate[examples] installs trl")
    grpo = importlib.import_module("examples.trl_grpo")
    torch.manual_seed(0)
    samples, rewards = grpo.main(steps=2)
    assert len(rewards) == 2
    processor = grpo.tiny_processor()
    collator, model = grpo.collator_for(processor, counts=False), grpo.tiny_model(processor).eval()
    batch = collator.stack(samples[:4])  # of the first step, before the weights changed
    sampled, labels = batch.pop("logprobs")[:, 1:], batch["labels"][:, 1:]
    with torch.no_grad():
        chances = model(**batch).logits[:, :-1].log_softmax(-1)
    chances = chances.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    trains = labels != -100
    assert trains.sum(1).min() >= 1
    torch.testing.assert_close(chances[trains], sampled[trains], atol=1e-4, rtol=1e-4)


def test_packs_teach():
    falls(packed.main())


@pytest.mark.parametrize("objective", other_objectives.OBJECTIVES, ids=lambda one: one.__name__)
def test_other_objectives_teach(objective):
    falls(objective())


def test_every_way_to_start_workers_trains_alike():
    expected = dataloader.main(epochs=1)
    falls(dataloader.main())
    # workers of the fork server are sent the same as those that are spawned and import torch
    spawned = [("spawn", 1)] if NIGHTLY else []
    for method, workers in [("fork", 2), ("forkserver", 2), *spawned]:
        assert dataloader.main(method, workers=workers, epochs=1) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore")  # torchdata warns about itself
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_is_the_rest_of_it(workers):
    pytest.importorskip("torchdata", reason="the extra vlmcollate[examples] installs torchdata")
    stateful = importlib.import_module("examples.stateful_dataloader")
    whole = list(stateful.loader(workers))
    assert len(whole) == 6
    for stop_after in range(1, 6, 1 if NIGHTLY else 2):
        rest, _ = stateful.main(stop_after, workers)
        assert len(rest) == 6 - stop_after
        for one, other in zip(rest, whole[stop_after:], strict=True):
            assert all(torch.equal(one[key], other[key]) for key in other)
