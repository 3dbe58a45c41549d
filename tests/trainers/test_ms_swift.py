"""ms-swift trains a tiny model with the template that collates."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch

from tests.trainers.rows import read_rows, save_checkpoint, write_rows
from vlmcollate import ConfigError, collator_for
from vlmcollate.errors import ConversationError
from vlmcollate.testing import tiny_model, tiny_processor

pytest.importorskip("swift.template", reason="run scripts/try_trainer.py ms_swift")
pytestmark = pytest.mark.filterwarnings("default")
os.environ["WANDB_DISABLED"] = "true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swift")
    save_checkpoint(folder / "model")
    write_rows(folder)
    (folder / "plugin.py").write_text(
        "from vlmcollate.integrations.ms_swift import register_collator\nregister_collator()\n"
    )
    return folder


def _arguments(folder, rows="rows.jsonl") -> list[str]:
    options = {
        "model": folder / "model",
        "model_type": "qwen2_5_vl",
        "dataset": folder / rows,
        "external_plugins": folder / "plugin.py",
        "template": "vlmcollate",
        "output_dir": folder / "output",
        "tuner_type": "full",
        "freeze_vit": "false",
        "max_length": 256,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 8,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "split_dataset_ratio": 0,
        "dataloader_num_workers": 0,
        "torch_dtype": "float32",
        "attn_impl": "sdpa",
        "use_cpu": "true",
        "strict": "true",
        "report_to": "none",
    }
    return [text for key, value in options.items() for text in (f"--{key}", str(value))]


def _losses(result: Any) -> list[float]:
    return [float(entry["loss"]) for entry in result["log_history"] if "loss" in entry]


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_a_model_trains_on_images_videos_and_text(folder, streaming):
    from swift.pipelines import sft_main

    losses = _losses(sft_main([*_arguments(folder), "--streaming", streaming]))
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 1


def test_a_model_trains_on_pairs(folder):
    from swift.pipelines import rlhf_main

    rows = [{**row, "rejected_response": "Red. No."} for row in read_rows(folder / "rows.jsonl")]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    losses = _losses(rlhf_main([*_arguments(folder, "pairs.jsonl"), "--rlhf_type", "dpo"]))
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.6


def _template(folder, *, options=None, **arguments) -> Any:
    from swift.model import get_model_processor
    from swift.template import get_template

    from vlmcollate.integrations.ms_swift import register_collator

    register_collator("tried", **(options or {}))
    _, processor = get_model_processor(
        str(folder / "model"), model_type="qwen2_5_vl", load_model=False
    )
    template = get_template(processor, template_type="tried", **{"max_length": 256, **arguments})
    template.set_mode("train")
    return template


def test_batches_are_those_of_the_collator(folder):
    template, rows = _template(folder), read_rows(folder / "rows.jsonl")[:3]
    batch = template.data_collator([template.encode(row, return_length=True) for row in rows])
    expected = collator_for(tiny_processor(), counts=False)(rows)
    assert set(batch) == set(expected)
    assert all(torch.equal(batch[key], expected[key]) for key in expected)


def test_packs_are_documents_of_one_row(folder):
    template, rows = _template(folder, padding_free=True), read_rows(folder / "rows.jsonl")[:3]
    encoded = [template.encode(row, return_length=True) for row in rows]
    batch = template.data_collator(encoded)
    assert batch["input_ids"].shape == (1, sum(row["length"] for row in encoded))
    assert (batch.pop("text_position_ids") == 0).sum() == 3
    model = tiny_model(tiny_processor())
    loss = model(**batch).loss
    alone = [model(**_template(folder).data_collator([row])) for row in encoded]
    counts = [sum(label != -100 for label in row["labels"]) for row in encoded]
    by_hand = sum(out.loss * n for out, n in zip(alone, counts, strict=True)) / sum(counts)
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-4)


def test_a_packed_dataset_is_collated(folder):
    from swift.dataset import AddLengthPreprocessor, LazyLLMDataset, PackingDataset, load_dataset

    template = _template(folder)
    rows, _ = load_dataset(str(folder / "rows.jsonl"))
    options = {"num_proc": 1, "load_from_cache_file": False, "strict": True}
    measured = AddLengthPreprocessor(template=template)(rows, **options)
    packs = PackingDataset(template, LazyLLMDataset(measured, template.encode, strict=True))
    assert sum(map(len, packs.packed_idx)) == len(rows)
    batch = template.data_collator([packs[0]])
    assert batch["input_ids"].shape == (1, packs.packed_length[0])
    assert (batch["text_position_ids"] == 0).sum() == len(packs.packed_idx[0]) > 1


def test_weights_are_the_loss_scale(folder):
    template = _template(folder)
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes", "loss_scale": 0.5},
    ]
    batch = template.data_collator([template.encode({"messages": messages})])
    assert set(batch["loss_scale"].unique().tolist()) == {0.0, 0.5}


def test_the_last_round_and_the_system_message_are_those_of_ms_swift(folder):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}] * 2
    expected = collator_for(tiny_processor(), train_on="last_turn")
    row = {"messages": chat}
    encoded = _template(folder, loss_scale="last_round").encode(row)
    assert encoded["labels"] == expected.encode(chat).labels.tolist()
    template = _template(folder, default_system="Be brief.")
    system = {"role": "system", "content": "Be brief."}
    whole = collator_for(tiny_processor()).encode([system, *chat])
    assert template.encode(row)["input_ids"] == whole.input_ids.tolist()
    own = {"messages": [{"role": "system", "content": "Mine."}, *chat]}
    whole = collator_for(tiny_processor()).encode(own)
    assert template.encode(own)["input_ids"] == whole.input_ids.tolist()


def test_the_boxes_of_objects_are_not_ignored(folder):
    chat = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "<bbox>"}]
    row = {"messages": chat, "objects": {"bbox": [[1, 2, 3, 4]], "ref": []}}
    with pytest.raises(ConversationError, match=r"objects: .* whose boxes the text has to spell"):
        _template(folder).encode(row)


def test_a_row_that_is_too_long_is_dropped_or_truncated(folder):
    from swift.template import MaxLengthError

    row = {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "yes " * 90},
        ]
    }
    with pytest.raises(MaxLengthError, match="longer than max_length=64"):
        _template(folder, max_length=64).encode(row)
    truncating = _template(folder, max_length=64, truncation_strategy="right")
    assert len(truncating.encode(row)["input_ids"]) == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation_strategy": "left"}, "found 'left', expected 'delete' or 'right'; change it"),
        ({"padding_side": "left"}, "found 'left', expected 'right'; change it"),
        ({"options": {"pad": 1}}, "'pad'"),
        ({"options": {"shift_labels": True}}, "since ms-swift shifts labels itself"),
        ({"options": {"split_turns": True}}, "split_turns does not suit the template"),
        ({"max_pixels": 3136}, "max_pixels does not suit the template: found 3136"),
        ({"use_chat_template": False}, "use_chat_template does not suit"),
        ({"enable_thinking": True}, "enable_thinking does not suit"),
        ({"response_prefix": "<think>"}, "response_prefix does not suit"),
        ({"loss_scale": "all"}, "found 'all', expected 'default' or 'last_round'; set train_on"),
        ({"loss_scale": "ignore_empty_think"}, "loss_scale does not suit"),
    ],
)
def test_misconfigurations_are_refused(folder, arguments, message):
    with pytest.raises(ConfigError, match=message):
        _template(folder, **arguments)


def test_inference_is_refused(folder):
    template = _template(folder)
    template.set_mode("transformers")
    with pytest.raises(ConfigError, match="'tried' trains only: found the mode 'transformers'"):
        template.encode({"messages": [{"role": "user", "content": "Hi"}]})
    with pytest.raises(ConfigError, match="found padding_to=64, expected None"):
        template.data_collator([], padding_to=64)
