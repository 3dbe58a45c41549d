"""Fractional weights reach the loss: in a function, and in the trainers of Hugging Face."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.spawn import start_processes
from transformers import Trainer, TrainingArguments

from vlmcollate import ConfigError, RobustCollator, collator_for
from vlmcollate.integrations import WeightedLossMixin, sum_of_weights, weighted_loss
from vlmcollate.mixture import Mixture
from vlmcollate.objectives import CompletionsCollator
from vlmcollate.testing import tiny_model, tiny_processor

RATE = 0.5
CHATS: list[list[dict[str, Any]]] = [
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes it is", "weight": first},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": answer, "weight": second},
    ]
    for answer, first, second in [
        ("No", 0.25, 1.0), ("A square", 1.0, 0.5), ("Red", 1.0, 1.0), ("Yes and no", 0.0, 2.0),
    ]
]  # fmt: skip


class WeightedTrainer(WeightedLossMixin, Trainer):  # type: ignore[misc]
    pass


@pytest.mark.parametrize("wrong", [-0.5, float("nan"), float("inf")])
def test_wrong_weights_are_refused(wrong):
    labels, logits = torch.tensor([[1, 0]]), torch.zeros(1, 2, 3)
    for weights in (torch.tensor([[1.0, wrong]]), torch.tensor([[1.0, wrong]]).bfloat16()):
        with pytest.raises(ConfigError, match=f"loss_weights are wrong: found {wrong}, expected"):
            weighted_loss(logits, labels, weights)
        with pytest.raises(ConfigError, match="loss_weights are wrong"):
            sum_of_weights({"labels": labels, "loss_weights": weights})


def test_missing_labels_are_refused():
    with pytest.raises(ConfigError, match="labels are missing: found None"):
        weighted_loss(torch.zeros(1, 2, 3), None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="labels are missing"):
        sum_of_weights({"loss_weights": torch.ones(1, 2)})


@given(
    weights=st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0]), min_size=6, max_size=6),
    seed=st.integers(0, 9),
    shift=st.booleans(),
)
def test_the_loss_is_the_weighted_mean_of_its_tokens(weights, seed, shift):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, generator=generator)
    labels = torch.randint(5, (2, 3), generator=generator)
    labels[0, 1] = -100
    given_weights = torch.tensor(weights).reshape(2, 3)
    logs = logits.log_softmax(dim=-1)
    losses, total = 0.0, 0.0
    for row in range(2):
        for at in range(int(shift), 3):
            label, weight = int(labels[row, at]), float(given_weights[row, at])
            if label >= 0:
                losses -= weight * float(logs[row, at - int(shift), label])
                total += weight
    batch = {"labels": labels, "loss_weights": given_weights}
    found = weighted_loss(logits, labels, given_weights, shift=shift)
    assert float(sum_of_weights(batch, shift=shift)) == pytest.approx(total)
    assert float(found) == pytest.approx(losses / total if total else 0, abs=1e-5)


def test_without_weights_it_is_the_loss_of_the_model():
    processor = tiny_processor()
    chats = [[{**turn, "weight": 1.0} for turn in chat if "weight" in turn] for chat in CHATS]
    chats = [[{"role": "user", "content": "Hi"}, chat[-1]] for chat in chats]
    batch = collator_for(processor)(chats)
    assert "loss_weights" not in batch
    outputs = tiny_model(processor)(**batch)
    torch.testing.assert_close(weighted_loss(outputs.logits, batch["labels"]), outputs.loss)


@pytest.mark.parametrize(
    ("shapes", "problem"),
    [
        (((1, 3, 5), (1, 4), (1, 4)), "logits of shape"),
        (((1, 3, 5), (1, 3), (1, 2)), "loss_weights of shape"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(shapes, problem):
    logits, labels, weights = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ConfigError, match=problem):
        weighted_loss(logits, labels.long(), weights)


def _trainer(folder: Any, kind: Any = WeightedTrainer, **options: Any) -> Any:
    processor = tiny_processor()
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=1,
        optim="sgd",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1e9,
        report_to="none",
        use_cpu=True,
        remove_unused_columns=False,
        **options,
    )
    return kind(
        model=tiny_model(processor),
        args=arguments,
        train_dataset=CHATS,
        eval_dataset=CHATS,
        data_collator=collator_for(processor),
    )


def _expected_step(model: Any) -> list[torch.Tensor]:
    """The weights after one step of gradient descent on all chats at once."""
    batch = collator_for(tiny_processor())(CHATS)
    weights = batch.pop("loss_weights")
    loss = weighted_loss(model(**batch).logits, batch["labels"], weights)
    loss.backward()
    return [p.detach() - RATE * (0 if p.grad is None else p.grad) for p in model.parameters()]


def _check_step(model: Any) -> None:
    torch.manual_seed(0)
    for found, expected in zip(
        model.parameters(), _expected_step(tiny_model(tiny_processor())), strict=True
    ):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [4, 2, 1])
def test_a_trainer_divides_by_the_weights_of_all_accumulated_batches(rows, tmp_path):
    trainer = _trainer(
        tmp_path,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=4 // rows,
    )
    trainer.train()
    _check_step(trainer.model)


def test_evaluation_uses_the_weights(tmp_path):
    trainer = _trainer(tmp_path, per_device_eval_batch_size=4)
    batch = collator_for(tiny_processor())(CHATS)
    weights = batch.pop("loss_weights")
    with torch.no_grad():
        expected = weighted_loss(trainer.model(**batch).logits, batch["labels"], weights)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_another_loss_function_is_refused(tmp_path):
    options = {"compute_loss_func": lambda *_: 0}
    with pytest.raises(ConfigError, match="compute_loss_func and the weighted loss exclude"):
        WeightedTrainer(
            tiny_model(tiny_processor()),
            TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
            collator_for(tiny_processor()),
            **options,
        )
    with pytest.raises(ConfigError, match="label_smoothing_factor and the weighted loss"):
        _trainer(tmp_path, label_smoothing_factor=0.5)


@pytest.mark.parametrize(
    ("loss_type", "message"),
    [("chunked_nll", "returns no logits.*; set loss_type='nll'"), ("dft", "and the weighted loss")],
)
def test_other_losses_of_trl_are_refused(loss_type, message, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    arguments.loss_type = loss_type  # as TRL's SFTConfig has it
    with pytest.raises(ConfigError, match=message):
        WeightedTrainer(tiny_model(tiny_processor()), arguments, collator_for(tiny_processor()))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda collator: collator,
        lambda collator: collator.stack,
        CompletionsCollator,
        lambda collator: RobustCollator(collator=collator),
        lambda collator: Mixture({"a": ([1], 1)}).collator(collator),
    ],
)
def test_labels_that_are_shifted_already_are_refused(tmp_path, wrap):
    """Also by a collator inside another, or they would be shifted twice."""
    with pytest.raises(ConfigError, match="shift_labels of the collator"):
        WeightedTrainer(
            model=tiny_model(tiny_processor()),
            args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
            data_collator=wrap(collator_for(tiny_processor(), shift_labels=True)),
        )


def test_an_sft_trainer_takes_the_weights(tmp_path):
    trl = pytest.importorskip("trl")

    class WeightedSFTTrainer(WeightedLossMixin, trl.SFTTrainer):  # type: ignore[misc, name-defined]
        pass

    processor = tiny_processor()
    torch.manual_seed(0)
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=1, optim="sgd", learning_rate=RATE,
        lr_scheduler_type="constant", max_grad_norm=1e9, report_to="none", use_cpu=True,
        remove_unused_columns=False, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, bf16=False,
        gradient_checkpointing=False, loss_type="nll",
    )  # fmt: skip
    datasets = pytest.importorskip("datasets")
    trainer = WeightedSFTTrainer(
        model=tiny_model(processor),
        args=arguments,
        train_dataset=datasets.Dataset.from_list([{"messages": chat} for chat in CHATS]),
        data_collator=collator_for(processor),
        processing_class=processor,
    )
    trainer.train()
    _check_step(trainer.model)


def _train_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank))
    trainer = _trainer(
        folder,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        ddp_backend="gloo",
    )
    trainer.train()
    _check_step(trainer.model)
    torch.distributed.destroy_process_group()


def test_two_ranks_divide_by_the_weights_of_both(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_train_rank, (port, str(tmp_path)), nprocs=2, start_method="forkserver")
