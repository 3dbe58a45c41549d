"""TRL's trainers learn from our batches what they learn from their own."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from tokenizers.processors import TemplateProcessing

from tests.models.by_family import tiny_model
from tests.processors import build
from vlmcollate import RobustCollator, collator_for, testing
from vlmcollate.preference import KTOCollator, PreferenceCollator, RewardCollator
from vlmcollate.testing import tiny_processor

trl = pytest.importorskip("trl", reason="the extra vlmcollate[examples] installs trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # trainers warn about themselves

STEPS = 2


def image(number):
    return Image.new("RGB", (56 + 28 * number, 56), (40 * number, 90, 7))


def message(role, text):
    return {"role": role, "content": text}


def pairs(number):
    return {
        "images": [image(number)],
        "prompt": [message("user", f"What is {number}?")],
        "chosen": [message("assistant", "Red. " * (number + 1))],
        "rejected": [message("assistant", "Blue, no. " * (4 - number))],
    }


def answers(number):
    row = pairs(number)
    side = row.pop("chosen"), row.pop("rejected")
    return {**row, "completion": side[number % 2], "label": number % 2 == 0}


def dataset(row, count=4):
    def rows(chosen):
        found = [row(number) for number in chosen["row"]]
        return {key: [one[key] for one in found] for key in found[0]}

    return Dataset.from_list([{"row": k} for k in range(count)]).with_transform(rows)


@cache
def smolvlm():
    """Returns a processor whose tokenizer adds no token, as that of SmolVLM's checkpoints."""
    processor = build("smolvlm")
    backend = processor.tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return processor


FAMILIES: dict[str, tuple[Any, Any, str]] = {
    "qwen2_5_vl": (tiny_processor, testing.tiny_model, "<|im_end|>"),
    "smolvlm": (smolvlm, lambda processor: tiny_model("smolvlm", processor), "<end_of_utterance>"),
}
"""For each family a processor, its tiny model, and the token that ends an answer."""


def another(model):
    """Changes the weights of a model a little, as a reference has others."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model


def trainer_of(kind, config, family, row, collate, tmp_path, **options):
    make_processor, make_model, _ = FAMILIES[family]
    processor = make_processor()
    torch.manual_seed(0)
    model = make_model(processor)
    torch.manual_seed(0)
    reference = another(make_model(processor))
    arguments = config(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=1 if family == "smolvlm" else STEPS,  # whose vocabulary is large
        logging_steps=1,
        learning_rate=1e-3,
        remove_unused_columns=False,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )
    return kind(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=dataset(row),
        processing_class=processor,
        data_collator=collate and collate(processor),
    )


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def without_what_follows_the_stop(collate, stop):
    """Leaves the token behind a stop out of the masks that TRL's own collator makes."""

    def collated(rows):
        batch = collate(rows)
        for half in ("", "KL_"):
            if f"{half}input_ids" in batch:
                ids, mask = batch[f"{half}input_ids"], batch[f"{half}completion_mask"]
                mask[:, 1:] *= ids[:, :-1] != stop
        return batch

    return collated


CASES = {
    "dpo": (trl.DPOTrainer, trl.DPOConfig, pairs, PreferenceCollator),
    "kto": (trl.KTOTrainer, trl.KTOConfig, answers, KTOCollator),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_trls_own_collator(name, family, tmp_path):
    kind, config, row, collator = CASES[name]
    given = kind, config, family, row
    ours = trainer_of(*given, lambda p: collator(collator_for(p)), tmp_path)
    theirs = trainer_of(*given, None, tmp_path)
    make_processor, _, token = FAMILIES[family]
    stop = make_processor().tokenizer.convert_tokens_to_ids(token)
    theirs.data_collator = without_what_follows_the_stop(theirs.data_collator, stop)
    found, expected = losses(ours), losses(theirs)
    assert found
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def videos(number):
    row = pairs(number)
    frames = np.full((2, 56, 56, 3), 30 * number, np.uint8)
    content = [{"type": "video", "video": frames}, {"type": "text", "text": "What moves?"}]
    return {**row, "images": [], "prompt": [{"role": "user", "content": content}]}


def test_videos_train(tmp_path):
    trainer = trainer_of(
        trl.DPOTrainer,
        trl.DPOConfig,
        "qwen2_5_vl",
        videos,
        lambda p: PreferenceCollator(collator_for(p)),
        tmp_path,
    )
    found = losses(trainer)
    assert len(found) == STEPS
    assert found[0] != found[1]


def test_a_reward_model_of_trl_takes_the_batch(tmp_path):
    import transformers

    processor = tiny_processor()
    torch.manual_seed(0)
    tokenizer = processor.tokenizer
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.Qwen2ForSequenceClassification(config)
    collate = RewardCollator(collator_for(processor))
    rows = [
        {"prompt": f"What is {k}?", "chosen": "Red.", "rejected": "No " * k, "margin": 0.5}
        for k in range(1, 3)
    ]
    batch = collate(rows)
    batch.pop("mm_token_type_ids")  # which a model of text has not
    margin = batch.pop("margin")
    rewards = model(**batch).logits[:, 0]
    chosen, rejected = rewards.chunk(2)
    loss = -torch.nn.functional.logsigmoid(chosen - rejected - margin).mean()
    loss.backward()
    assert torch.isfinite(loss)
    alone = model(**{key: value[:1] for key, value in batch.items()}).logits[0, 0]
    assert torch.allclose(alone, rewards[0], atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_trainer_continues_after_a_row_that_is_skipped(name, tmp_path):
    kind, config, row, collator = CASES[name]
    counted = []

    def broken(number):
        return {**row(number), "images": ["/nowhere/missing.png"] if number == 3 else [image(0)]}

    def robust(processor):
        options = {"with_kl": False} if collator is KTOCollator else {}
        skip = RobustCollator(collator=collator(collator_for(processor), **options))

        def collated(rows):
            batch = skip(rows)
            counted.append(int(batch["n_failed_samples"]))
            return batch

        return collated

    options = {"loss_type": "apo_zero_unpaired"} if collator is KTOCollator else {}
    trainer = trainer_of(kind, config, "qwen2_5_vl", broken, robust, tmp_path, **options)
    found = losses(trainer)
    assert len(found) == STEPS
    assert np.isfinite(found).all()
    assert sum(counted) == 1
