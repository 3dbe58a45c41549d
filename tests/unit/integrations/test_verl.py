"""The dataset for verl, which needs none of it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch

from tests.trainers.rows import read_rows, save_checkpoint, write_rows
from vlmcollate import ConfigError, PadToLongest, collator_for
from vlmcollate.errors import ConversationError, LabelError
from vlmcollate.integrations.verl import CollatorDataset
from vlmcollate.testing import tiny_model, tiny_processor

pa = pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("verl")
    save_checkpoint(folder)
    rows = read_rows(write_rows(folder, 7))
    pq.write_table(pa.Table.from_pylist(rows[:3]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist(rows[3:]), folder / "b.parquet")
    return folder


def _dataset(folder, *, processor=None, max_samples=-1, **config) -> CollatorDataset:
    processor = processor or tiny_processor()
    processor.tokenizer.name_or_path = str(folder)
    files = [str(folder / name) for name in ("a.parquet", "b.parquet")]
    return CollatorDataset(files, processor.tokenizer, config, processor, max_samples)


def test_samples_are_those_of_the_collator(folder):
    dataset, rows = _dataset(folder), read_rows(folder / "rows.jsonl")
    assert len(dataset) == 7
    collator = collator_for(tiny_processor(), counts=False)
    for sample, row in zip((dataset[i] for i in range(7)), rows, strict=True):
        expected = collator([row])
        ids, labels = expected.pop("input_ids"), expected.pop("labels")
        assert torch.equal(sample["input_ids"], ids[0])
        assert torch.equal(sample["loss_mask"] > 0, labels[0] != -100)
        assert sample["position_ids"].shape == (4, ids.shape[1])
        media = sample["multi_modal_inputs"]
        assert set(media) == set(expected) - {"attention_mask", "mm_token_type_ids"}
        assert all(torch.equal(media[key], expected[key]) for key in media)


def test_the_positions_are_those_of_the_model(folder):
    sample = _dataset(folder)[0]
    model = tiny_model(tiny_processor()).eval()
    expected = collator_for(tiny_processor(), counts=False)([read_rows(folder / "rows.jsonl")[0]])
    with torch.no_grad():
        logits = model(
            input_ids=sample["input_ids"][None],
            position_ids=sample["position_ids"][:, None],
            **sample["multi_modal_inputs"],
        ).logits
        assert torch.allclose(logits, model(**expected).logits, atol=1e-5)


def test_weights_are_the_loss_mask(folder, tmp_path):
    import pyarrow.parquet as pq

    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi", "weight": None},
        {"role": "assistant", "content": "Yes", "weight": 0.5},
    ]
    pq.write_table(pa.Table.from_pylist([{"chat": chat}]), tmp_path / "rows.parquet")
    processor = tiny_processor()
    processor.tokenizer.name_or_path = str(folder)
    config = {"messages_key": "chat"}
    path = str(tmp_path / "rows.parquet")
    sample = CollatorDataset(path, processor.tokenizer, config, processor)[0]
    assert set(sample["loss_mask"].unique().tolist()) == {0.0, 0.5}


def test_rows_are_chosen(folder):
    assert _dataset(folder, max_samples=2).rows.tolist() == [0, 1]
    drawn = _dataset(folder, max_samples=4, shuffle=True, seed=1).rows.tolist()
    assert drawn == _dataset(folder, max_samples=4, shuffle=True, seed=1).rows.tolist()
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pad_mode": "right"}, "found 'right', expected 'no_padding'; set data.pad_mode=no_pad"),
        ({"truncation": "left"}, "found 'left', expected 'error' or 'right'"),
        ({"vlmcollate": {"pad": 1}}, "'pad'"),
        ({"vlmcollate": {"padding": PadToLongest()}}, "since verl pads and packs; remove data"),
        ({"vlmcollate": {"shift_labels": True}}, "found True, expected False, since verl shifts"),
        ({"vlmcollate": {"split_turns": True}}, "split_turns does not suit the dataset"),
        ({"vlmcollate": {"on_overlong": "drop"}}, "since verl cannot skip a row"),
        ({"vlmcollate": {"dummy_media": "batch"}}, "expected 'never' or 'sample', since a sample"),
    ],
)
def test_misconfigurations_are_refused(folder, config, message):
    with pytest.raises(ConfigError, match=message):
        _dataset(folder, **config)


def _of_rows(folder, rows, **config):
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), folder / "named.parquet")
    processor = tiny_processor()
    processor.tokenizer.name_or_path = str(folder)
    path = str(folder / "named.parquet")
    return CollatorDataset(path, processor.tokenizer, config, processor)


def test_columns_have_the_names_of_the_configuration(folder):
    row = read_rows(folder / "rows.jsonl")[0]
    renamed = {"chat": row["messages"], "pics": row["images"]}
    found = _of_rows(folder, [renamed], messages_key="chat", image_key="pics")[0]
    expected = _of_rows(folder, [{"messages": row["messages"], "images": row["images"]}])[0]
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert found["multi_modal_inputs"].keys() == expected["multi_modal_inputs"].keys()


def test_dummy_media_has_its_tensors(folder):
    dataset = _dataset(folder, vlmcollate={"dummy_media": "sample"})
    for sample in (dataset[i] for i in range(7)):
        assert "image_grid_thw" in sample["multi_modal_inputs"] or (
            "video_grid_thw" in sample["multi_modal_inputs"]
        )


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([{"messages": None}], {"messages_key": "chat"}, r"^sample 0: has no messages: found"),
        ([{"chat": [], "messages": []}], {"messages_key": "chat"}, "'chat' and 'messages'; keep"),
    ],
)
def test_missing_columns_are_named(folder, rows, config, message):
    with pytest.raises(ConversationError, match=message):
        _of_rows(folder, rows, **config)[0]


def test_an_error_holds_the_row(folder):
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    dataset = _of_rows(folder, [{"messages": chat}, {"messages": chat[:1]}])
    with pytest.raises(LabelError, match=r"^sample 1: nothing is trained"):
        dataset[1]


def test_template_variables_are_those_of_verl(folder):
    dataset = _dataset(folder, apply_chat_template_kwargs={"enable_thinking": False})
    assert dataset.collator.template_kwargs == {"enable_thinking": False}
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    rows = [{"messages": chat, "thinks": True}]
    renamed = _of_rows(folder, rows, enable_thinking_key="thinks")._renamed(rows[0])
    assert renamed == {"messages": chat, "chat_template_kwargs": {"enable_thinking": True}}


def test_a_tokenizer_alone_is_refused():
    with pytest.raises(ConfigError, match=r"found the tokenizer .* alone, expected a processor"):
        CollatorDataset([], tiny_processor().tokenizer, {})


def test_inputs_that_verl_does_not_pass_are_refused(folder):
    dataset = _dataset(folder)
    sample = dataset.collator.encode(read_rows(folder / "rows.jsonl")[2])
    tokens = {**sample.tokens, "token_type_ids": torch.zeros(len(sample), dtype=torch.int64)}
    with pytest.raises(ConfigError, match=r"verl does not pass \['token_type_ids'\] to the model"):
        dataset.in_form(attrs.evolve(sample, tokens=tokens))


def test_a_model_that_cannot_be_trained_on_packs_is_refused(tmp_path):
    processor = save_checkpoint(tmp_path, "gemma3")
    processor.tokenizer.name_or_path = str(tmp_path)
    with pytest.raises(ConfigError, match="FlattenedDocuments"):
        CollatorDataset([], processor.tokenizer, {}, processor)
