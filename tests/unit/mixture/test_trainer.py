"""The Trainer of transformers resumes with a mixture of streams, without a word from the user."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmcollate import collator_for
from vlmcollate.mixture import IterableMixture
from vlmcollate.testing import tiny_model, tiny_processor

pytest.importorskip("accelerate", reason="the extra vlmcollate[examples] installs accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")  # trainers warn about themselves

BATCH, STEPS, SAVED = 4, 5, 3


def chats(name):
    return [
        [{"role": "user", "content": f"{name} {k}?"}, {"role": "assistant", "content": "Yes."}]
        for k in range(30)
    ]


def mixture(samples):
    sources = {"list": (chats("List"), 0.5), "web": (lambda: iter(chats("Web")), 0.5)}
    return IterableMixture(sources, seed=1, samples=samples)


def trained(folder, samples, resume=None, **options):
    """Trains, and returns the ids of each batch that the model was given."""
    from transformers import Trainer, TrainingArguments

    processor, mixed, found = tiny_processor(), mixture(samples), []
    model = tiny_model(processor)

    def note(module: Any, arguments: Any, given: Any) -> None:
        del module, arguments
        found.append(given["input_ids"].clone())

    model.register_forward_pre_hook(note, with_kwargs=True)
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        save_steps=SAVED,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        **options,
    )
    collator = mixed.collator(collator_for(processor, counts=False))
    trainer = Trainer(model=model, args=arguments, train_dataset=mixed, data_collator=collator)
    trainer.train(resume_from_checkpoint=resume)
    return found


def equal(found, expected):
    return len(found) == len(expected) and all(map(torch.equal, found, expected))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("run"))
    return f"{folder}/checkpoint-{SAVED}", trained(folder, BATCH * STEPS)


def test_no_row_is_lost_or_trained_twice(run, tmp_path):
    checkpoint, whole = run
    assert equal(trained(str(tmp_path), BATCH * STEPS, checkpoint), whole[SAVED:])


def test_skipping_no_data_trains_the_first_rows_again(run, tmp_path):
    checkpoint, whole = run
    again = trained(str(tmp_path), BATCH * STEPS, checkpoint, ignore_data_skip=True)
    assert equal(again, whole[: STEPS - SAVED])
