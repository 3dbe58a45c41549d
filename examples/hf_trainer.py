"""Hugging Face's Trainer.

`remove_unused_columns=False` keeps the Trainer from removing `messages`, which no model takes.
"""

from __future__ import annotations

import tempfile

from transformers import Trainer, TrainingArguments

from examples.chats import chats
from vlmcollate import collator_for
from vlmcollate.testing import tiny_model, tiny_processor


def main(steps: int = 30) -> list[float]:
    """Trains, and returns the logged losses."""
    processor = tiny_processor()
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        max_steps=steps,
        learning_rate=3e-3,
        logging_steps=5,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(
        model=tiny_model(processor),
        args=arguments,
        train_dataset=chats(),
        data_collator=collator_for(processor),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print(main())
