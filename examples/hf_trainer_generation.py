"""Hugging Face's Trainer, which generates answers in its evaluation and compares them.

    python -m examples.hf_trainer_generation
    torchrun --nproc-per-node 2 -m examples.hf_trainer_generation

On several ranks, each evaluates a part of the examples, and the metrics get each example once.
"""

from __future__ import annotations

import tempfile
from typing import Any

from transformers import EvalPrediction, Trainer, TrainingArguments

from examples.chats import COLOURS, chats
from vlmcollate import collator_for
from vlmcollate.integrations import GenerationMixin
from vlmcollate.testing import tiny_model, tiny_processor


class GeneratingTrainer(GenerationMixin, Trainer):  # type: ignore[misc]  # Any to mypy
    """A Trainer that generates greedily."""

    generation_kwargs = {"max_new_tokens": 8, "do_sample": False}


def main(steps: int = 40) -> list[dict[str, Any]]:
    """Trains, and returns the metrics before and after it."""
    processor = tiny_processor()

    def colour_of(ids: Any) -> str | None:
        text = processor.tokenizer.decode(ids[ids >= 0])  # -100 is padding
        return next((colour for colour in COLOURS if colour in text), None)

    def right_colours(found: EvalPrediction) -> dict[str, float]:
        answers = [colour_of(ids) for ids in found.predictions]
        references = [colour_of(ids) for ids in found.label_ids]
        right = [a == b for a, b in zip(answers, references, strict=True)]
        return {"right": sum(right) / len(right), "answers": len(right)}

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        max_steps=steps,
        learning_rate=3e-3,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = GeneratingTrainer(
        model=tiny_model(processor),
        args=arguments,
        train_dataset=chats(),
        eval_dataset=chats(6),
        data_collator=collator_for(processor),
        compute_metrics=right_colours,
    )
    before = trainer.evaluate()
    trainer.train()
    return [before, trainer.evaluate()]


if __name__ == "__main__":
    main()  # the first rank prints the metrics
