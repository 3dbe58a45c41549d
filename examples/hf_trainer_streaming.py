"""Hugging Face's Trainer with a dataset that streams.

For an `IterableDataset`, accelerate lets the first rank collate the batches of all and cuts every
tensor to as many rows as there are samples. A batch's images have rows of their own, so that they
would be lost. `dispatch_batches=False` lets every rank collate its own samples.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from examples.chats import chats
from vlmcollate import collator_for
from vlmcollate.testing import tiny_model, tiny_processor


class Stream(IterableDataset[dict[str, Any]]):
    """Chats without end, in place of `load_dataset(..., streaming=True)`."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            yield from chats()


def main(steps: int = 30, *, dispatch_batches: bool = False) -> list[float]:
    """Trains, and returns the logged losses."""
    processor = tiny_processor()
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        max_steps=steps,
        learning_rate=3e-3,
        logging_steps=5,
        remove_unused_columns=False,
        accelerator_config={"dispatch_batches": dispatch_batches},
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(
        model=tiny_model(processor),
        args=arguments,
        train_dataset=Stream(),
        data_collator=collator_for(processor),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print(main())
