"""Axolotl trains a tiny model with the plugin."""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.trainers.rows import read_rows, save_checkpoint, write_rows
from vlmcollate import ConfigError
from vlmcollate.testing import tiny_model

os.environ["AXOLOTL_DO_NOT_TRACK"] = "1"  # read when it is imported
pytest.importorskip("axolotl", reason="run scripts/try_trainer.py axolotl")
pytestmark = pytest.mark.filterwarnings("default")

PLUGIN = "vlmcollate.integrations.axolotl.CollatorPlugin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("axolotl")
    save_checkpoint(folder / "model")
    write_rows(folder)
    return folder


def _config(folder, **options) -> dict[str, Any]:
    return {
        "base_model": str(folder / "model"),
        "processor_type": "AutoProcessor",
        "plugins": [PLUGIN],
        "skip_prepare_dataset": True,
        "remove_unused_columns": False,
        "datasets": [
            {
                "path": str(folder / "rows.jsonl"),
                "ds_type": "json",
                "type": "chat_template",
                "field_messages": "messages",
                "roles_to_train": ["assistant"],
            }
        ],
        "dataset_prepared_path": str(folder / "prepared"),
        "output_dir": str(folder / "output"),
        "sequence_len": 256,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 8,
        "num_epochs": 1,
        "optimizer": "adamw_torch",
        "learning_rate": 3e-3,
        "lr_scheduler": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "attn_implementation": "sdpa",
        "bf16": False,
        "tf32": False,
        "val_set_size": 0,
        "vlmcollate": {"on_overlong": "drop"},
        **options,
    }


def _loaded(folder, monkeypatch, **options) -> Any:
    from axolotl.cli.config import load_cfg

    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(_config(folder, **options)))
    return load_cfg(str(path))


def test_a_model_trains_on_images_videos_and_text(folder, monkeypatch):
    from axolotl.common.datasets import load_datasets
    from axolotl.train import train

    config = _loaded(folder, monkeypatch)
    _, _, trainer = train(cfg=config, dataset_meta=load_datasets(cfg=config))
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 8
    assert losses[-1] < losses[0] - 1
    collator = trainer.data_collator
    assert (type(collator).__name__, collator.on_overlong) == ("Qwen2_5_VLCollator", "drop")
    assert (collator.max_length, collator.padding.multiple_of) == (256, 64)


def _collator(folder, **options) -> Any:
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    from vlmcollate.integrations.axolotl import build_collator

    config = DictDefault({**_config(folder), "processor_config": str(folder / "model"), **options})
    return build_collator(AutoTokenizer.from_pretrained(folder / "model"), cfg=config)


@pytest.mark.parametrize(
    ("options", "padding"),
    [
        ({"pad_to_sequence_len": True}, "PadToLength(side='right', length=256)"),
        ({"pad_to_sequence_len": False}, "PadToLongest(side='right', multiple_of=1)"),
        ({"batch_flattening": True}, "FlattenedDocuments"),
    ],
)
def test_the_padding_follows_the_configuration(folder, options, padding):
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    manager = PluginManager()
    manager.register(PLUGIN)
    config = DictDefault({**_config(folder), "processor_config": str(folder / "model"), **options})
    build, given = manager.get_collator_cls_and_kwargs(config)
    if options.get("pad_to_sequence_len"):
        given["pad_to_multiple_of"] = 256
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    collator = build(tokenizer, padding=True, return_tensors="pt", **given)
    assert repr(collator.padding).startswith(padding)
    assert collator.processor.tokenizer is tokenizer


def test_packs_are_documents_of_one_row(folder):
    collator = _collator(folder, batch_flattening=True)
    rows = read_rows(folder / "rows.jsonl")[:3]
    batch = collator(rows)
    assert len(batch["input_ids"]) == 1
    assert (batch["position_ids"][0] == 0).sum() == 3
    model, padded = tiny_model(collator.processor), _collator(folder)
    counts = [int((padded([row])["labels"] != -100).sum()) for row in rows]
    alone = [model(**padded([row])).loss.item() * n for row, n in zip(rows, counts, strict=True)]
    assert model(**batch).loss.item() == pytest.approx(sum(alone) / sum(counts), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processor_type": None}, "found no processor_type.*set processor_type: AutoProcessor"),
        ({"skip_prepare_dataset": False}, "found False, expected true.*skip_prepare_dataset: true"),
        ({"sample_packing": True}, "found True, expected false.*set sample_packing: false"),
        ({"train_on_inputs": True}, "found True, expected false.*set train_on_inputs: false"),
        ({"image_size": 512}, "image_size has no effect with the plugin: found 512; set the size"),
        (
            {"datasets": [{"path": "rows.jsonl", "roles_to_train": ["user", "assistant"]}]},
            r"datasets\[0\].roles_to_train has no effect .* set vlmcollate.train_on",
        ),
        (
            {"datasets": [{"path": "rows.jsonl", "field_messages": "turns"}]},
            "field_messages has no effect .* rename the column",
        ),
    ],
)
def test_misconfigurations_are_refused(folder, monkeypatch, options, message):
    with pytest.raises(ConfigError, match=message):
        _loaded(folder, monkeypatch, **options)


def test_the_length_and_the_template_are_those_of_the_configuration(folder):
    kwargs = {"enable_thinking": False}
    collator = _collator(
        folder, vlmcollate={}, excess_length_strategy="truncate", chat_template_kwargs=kwargs
    )
    assert collator.on_overlong == "truncate"
    assert collator.template_kwargs == kwargs
    assert _collator(folder, vlmcollate={}).on_overlong == "raise"


def test_an_unknown_option_is_refused(folder):
    with pytest.raises(ConfigError, match="'pad'"):
        _collator(folder, vlmcollate={"pad": 1})
    with pytest.raises(ConfigError, match="shift_labels does not suit Axolotl"):
        _collator(folder, vlmcollate={"shift_labels": True})
