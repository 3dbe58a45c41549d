"""A trainer that generates in its evaluation passes every reference to the metrics, once."""

from __future__ import annotations

import copy
import os
import socket
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.multiprocessing.spawn import start_processes

from vlmcollate import ConfigError, collator_for
from vlmcollate.errors import ConversationError, LabelError, SampleTooLongError
from vlmcollate.integrations import EvaluationCollator, GenerationMixin
from vlmcollate.testing import tiny_model, tiny_processor

pytestmark = pytest.mark.filterwarnings("ignore")  # trainers warn about themselves


def chats(count):
    found = []
    for k in range(count):
        image = {"type": "image", "image": Image.new("RGB", (56 + 28 * k, 56), (30 * k, 80, 9))}
        parts = [image] if k % 2 else []
        question = [*parts, {"type": "text", "text": f"What is {k}? " * (k + 1)}]
        answer = f"It is {k}, " * (k + 1)
        found.append(
            [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        )
    return found


def trainer_of(folder, metrics, **options):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="the extra vlmcollate[examples] installs accelerate")
    base: Any = transformers.Trainer

    class GeneratingTrainer(GenerationMixin, base):  # type: ignore[misc]  # Any to mypy
        generation_kwargs = {"max_new_tokens": 6, "do_sample": False}

    processor = tiny_processor()
    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_eval_batch_size=2,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    return GeneratingTrainer(
        model=tiny_model(processor),
        args=arguments,
        eval_dataset=chats(5),
        data_collator=collator_for(processor),
        compute_metrics=metrics,
    )


def texts(ids, processor):
    return [processor.tokenizer.decode(row[row >= 0].tolist()) for row in ids]


def check(seen, trainer):
    """Checks what the metrics got against each chat alone."""
    processor, collator = tiny_processor(), collator_for(tiny_processor())
    (predictions, label_ids), expected = seen, chats(5)
    references = texts(label_ids, processor)
    assert references == [f"{chat[1]['content']}<|im_end|>" for chat in expected]
    model = trainer.model.eval()
    for row, chat in zip(predictions, expected, strict=True):
        prompt = collator.prompts([chat])
        with torch.no_grad():
            alone = model.generate(**prompt, max_new_tokens=6, do_sample=False)
        new = alone[0, prompt["input_ids"].shape[1] :].tolist()
        assert row[row >= 0].tolist() == new


def test_metrics_get_generated_tokens_and_references(tmp_path):
    seen: list[Any] = []

    def metrics(found):
        seen.append((found.predictions, found.label_ids))
        return {"rows": len(found.predictions)}

    trainer = trainer_of(tmp_path, metrics)
    result = trainer.evaluate()
    assert result["eval_rows"] == 5
    assert np.isfinite(result["eval_loss"])
    check(seen[0], trainer)
    assert trainer.predict(chats(3)).predictions.shape[0] == 3


def test_the_loss_is_that_of_the_whole_examples(tmp_path):
    transformers = pytest.importorskip("transformers")
    trainer = trainer_of(tmp_path, None)
    plain = transformers.Trainer(
        model=trainer.model,
        args=trainer.args,
        eval_dataset=trainer.eval_dataset,
        data_collator=trainer.data_collator,
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"])


def test_a_reference_is_the_whole_last_answer():
    collator, (chat,) = collator_for(tiny_processor()), chats(1)
    question = [*chat, {"role": "user", "content": "And?"}]
    with pytest.raises(ConversationError, match="sample 1: has no last answer"):
        EvaluationCollator(collator)([chat, question])
    untrained = [*question, {"role": "assistant", "content": "No.", "weight": 0}]
    with pytest.raises(LabelError, match="its last answer does not train"):
        EvaluationCollator(collator)([untrained])
    most = len(collator.prompt(chat)) + 2
    short = collator_for(tiny_processor(), max_length=most, on_overlong="truncate")
    with pytest.raises(SampleTooLongError):
        EvaluationCollator(short)([chat])


def test_examples_are_whole_if_training_splits_their_turns():
    (chat,) = chats(1)
    several = [*chat, *chat]
    plain, splitting = (
        EvaluationCollator(collator_for(tiny_processor(), split_turns=splits))([several])
        for splits in (False, True)
    )
    assert torch.equal(plain["labels"], splitting["labels"])
    assert torch.equal(plain["references"], splitting["references"])
    assert torch.equal(plain["prompts"]["input_ids"], splitting["prompts"]["input_ids"])


def test_the_end_is_that_of_the_generation_config(tmp_path):
    """What follows it is padding, whose token may be any."""
    seen: list[Any] = []

    def metrics(found):
        seen.append(found.predictions)
        return {}

    trainer = trainer_of(tmp_path, metrics)
    trainer.evaluate()
    last = int(seen[0][0][2])  # the token after which the first answer shall end
    config = copy.deepcopy(trainer.model.generation_config)
    config.eos_token_id, config.pad_token_id, config.max_new_tokens = last, 7, 6
    trainer.generation_kwargs = {"generation_config": config, "do_sample": False}
    trainer.evaluate()
    first = seen[1][0].tolist()
    assert first[first.index(last) + 1 :] == [-100] * (len(first) - first.index(last) - 1)
    for options in ({"num_return_sequences": 2, "num_beams": 2}, {"return_dict_in_generate": True}):
        trainer.generation_kwargs = options
        with pytest.raises(ConfigError, match="does not suit an evaluation"):
            trainer.evaluate()


def test_another_collator_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="collator must be"):
        EvaluationCollator(dict)  # type: ignore[arg-type]
    trainer = trainer_of(tmp_path, None)
    trainer.data_collator = dict
    with pytest.raises(ConfigError, match="needs prompts: found the data_collator type"):
        trainer.evaluate()


def _evaluate_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank))
    seen: list[Any] = []

    def metrics(found):
        seen.append((found.predictions, found.label_ids))
        return {"rows": len(found.predictions)}

    trainer = trainer_of(folder, metrics, ddp_backend="gloo")
    assert trainer.evaluate()["eval_rows"] == 5
    if rank == 0:
        check(seen[0], trainer)
    torch.distributed.destroy_process_group()


def test_two_ranks_see_every_row_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_evaluate_rank, (port, str(tmp_path)), nprocs=2, start_method="forkserver")
