"""Trainers train on bytes to the losses of floats, with one conversion a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from examples.chats import chats
from vlmcollate import collator_for, finish_pixels, normalize_pixels
from vlmcollate.testing import tiny_model, tiny_processor

pytestmark = pytest.mark.filterwarnings("ignore")  # trainers warn about themselves

STEPS = 3
GENERATED_FROM = {"input_ids", "attention_mask", "pixel_values", "image_grid_thw", "labels"}


def _rows(count=8):
    return Dataset.from_list([{"row": i} for i in range(count)]).with_transform(
        lambda rows: {"messages": [chats(16)[row]["messages"] for row in rows["row"]]}
    )


def _hf_trainer(tmp_path, pixels, **options):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="the extra vlmcollate[examples] installs accelerate")
    processor = tiny_processor()
    model = tiny_model(processor)
    finish_pixels(model)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=STEPS,
        logging_steps=1,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=_rows(),
        eval_dataset=_rows(4),
        data_collator=collator_for(processor, pixels=pixels),
    )


def _losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "options", [{}, {"gradient_checkpointing": True}, {"dataloader_num_workers": 2}]
)
def test_the_trainer_of_transformers(options, tmp_path, finished_pixels):
    expected = _losses(_hf_trainer(tmp_path, "float32", **options))
    assert not finished_pixels
    trainer = _hf_trainer(tmp_path, "uint8", **options)
    assert _losses(trainer) == expected
    assert len(finished_pixels) == STEPS
    trainer.evaluate()
    assert len(finished_pixels) == STEPS + 1  # one batch of eight


def test_prediction_by_generation(tmp_path, finished_pixels):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="the extra vlmcollate[examples] installs accelerate")
    found = []
    for pixels in ("float32", "uint8"):
        processor = tiny_processor()
        model = tiny_model(processor)
        finish_pixels(model)
        collate = collator_for(processor, pixels=pixels)
        trainer = transformers.Seq2SeqTrainer(
            model=model,
            args=transformers.Seq2SeqTrainingArguments(
                output_dir=str(tmp_path),
                predict_with_generate=True,
                generation_max_length=80,
                per_device_eval_batch_size=1,
                remove_unused_columns=False,
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
            ),
            data_collator=lambda rows, collate=collate: {
                key: value for key, value in collate(rows).items() if key in GENERATED_FROM
            },
            processing_class=processor.tokenizer,
        )
        found.append(trainer.predict(_rows(2)))
    assert (found[0].predictions == found[1].predictions).all()
    assert found[0].metrics["test_loss"] == found[1].metrics["test_loss"]
    assert len(finished_pixels) == 4  # each of two batches is generated from, and gives a loss


def test_the_trainer_of_trl(tmp_path, finished_pixels):
    trl = pytest.importorskip("trl", reason="the extra vlmcollate[examples] installs trl")
    losses = {}
    for pixels in ("float32", "uint8"):
        processor = tiny_processor()
        model = tiny_model(processor)
        finish_pixels(model)
        arguments = trl.SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            max_steps=STEPS,
            logging_steps=1,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        )
        losses[pixels] = _losses(
            trl.SFTTrainer(
                model=model,
                args=arguments,
                train_dataset=_rows(),
                data_collator=collator_for(processor, pixels=pixels),
                processing_class=processor,
            )
        )
    assert losses["uint8"] == losses["float32"]
    assert len(finished_pixels) == STEPS


def test_lightning(finished_pixels):
    lightning = pytest.importorskip(
        "lightning", reason="the extra vlmcollate[examples] installs lightning"
    )
    from examples.lightning_module import Tuner

    losses = {}
    for pixels in ("float32", "uint8"):
        processor = tiny_processor()
        model = tiny_model(processor)
        finish_pixels(model)
        tuner = Tuner(model)
        collate = collator_for(processor, pixels=pixels)
        loader: DataLoader[Any] = DataLoader(_rows(4), batch_size=2, collate_fn=collate)
        lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(tuner, loader)
        losses[pixels] = tuner.losses
    assert losses["uint8"] == losses["float32"]
    assert len(finished_pixels) == 2


@pytest.mark.parametrize("method", [None, "fork"])
def test_a_loop_of_ones_own(method):
    processor = tiny_processor()
    found = {}
    for pixels in ("float32", "uint8"):
        loader: DataLoader[Any] = DataLoader(
            _rows(4),
            batch_size=2,
            collate_fn=collator_for(processor, pixels=pixels),
            num_workers=int(method is not None),
            multiprocessing_context=method,
        )
        found[pixels] = [normalize_pixels(batch) for batch in loader]
    for batch, expected in zip(found["uint8"], found["float32"], strict=True):
        assert batch.keys() == expected.keys()
        assert all(torch.equal(batch[key], expected[key]) for key in expected)
