"""TRL's SFTTrainer, with the collator in place of its own preparation of the dataset."""

from __future__ import annotations

import tempfile

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from examples.chats import chats
from vlmcollate import collator_for
from vlmcollate.testing import tiny_model, tiny_processor


def main(steps: int = 30) -> list[float]:
    """Trains, and returns the logged losses."""
    processor = tiny_processor()
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        max_steps=steps,
        learning_rate=3e-3,
        logging_steps=5,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,  # the collator's max_length decides
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = SFTTrainer(
        model=tiny_model(processor),
        args=arguments,
        train_dataset=Dataset.from_list([{"row": i} for i in range(16)]).with_transform(_examples),
        data_collator=collator_for(processor),
        processing_class=processor,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _examples(rows: dict[str, list[int]]) -> dict[str, list[object]]:
    """Hands out pictures as they are; a dataset of yours holds paths or an Image column."""
    examples = chats(16)
    return {"messages": [examples[row]["messages"] for row in rows["row"]]}


if __name__ == "__main__":
    print(main())
