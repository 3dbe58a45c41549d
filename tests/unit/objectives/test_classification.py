"""Labels of rows, and the loss of a real model with a head of classes or numbers."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Gemma3ForSequenceClassification

from vlmcollate import BlockCausalMask, ConfigError, PadToLongest, collator_for
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    SampleTooLongError,
    UnreadKeyWarning,
)
from vlmcollate.formats import MessagesFormat
from vlmcollate.objectives import ClassificationCollator
from vlmcollate.testing import tiny_model, tiny_processor

PROCESSOR = tiny_processor("gemma3")
COLLATOR = collator_for(PROCESSOR)
IMAGE = Image.new("RGB", (56, 56), "teal")
LABEL2ID = {"cat": 0, "dog": 1, "emu": 2}
ROWS: list[dict[str, Any]] = [
    {"images": [IMAGE], "prompt": "Which animal is in this image?"},
    {"prompt": "Which?"},
    {"messages": [{"role": "user", "content": "It?"}, {"role": "assistant", "content": "A cat."}]},
]
LABELS = {
    "single_label_classification": ["emu", 0, "dog"],
    "multi_label_classification": [["cat", "emu"], [], [0, 0.5, 1]],
    "regression": [[0.5, -1.0, 3], (1, 2, 3), np.array([0.25, 0.0, 1.0])],
}


def rows_of(labels):
    return [{**row, "labels": label} for row, label in zip(ROWS, labels, strict=True)]


def model_of(**options):
    config = tiny_model(PROCESSOR).config
    for name, value in options.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    return Gemma3ForSequenceClassification(config).eval()


def collator_of(problem_type, collator=COLLATOR, **options):
    return ClassificationCollator(
        collator, problem_type=problem_type, **{"label2id": LABEL2ID, **options}
    )


def loss_by_hand(problem_type, logits, labels):
    if problem_type == "single_label_classification":
        chances = logits.exp() / logits.exp().sum(1, keepdim=True)
        return -chances[range(len(labels)), labels].log().mean()
    if problem_type == "multi_label_classification":
        chances = 1 / (1 + (-logits).exp())
        return -(labels * chances.log() + (1 - labels) * (1 - chances).log()).mean()
    return ((logits - labels) ** 2).mean()


EXPECTED = {
    "single_label_classification": torch.tensor([2, 0, 1]),
    "multi_label_classification": torch.tensor([[1, 0, 1], [0, 0, 0], [0, 0.5, 1]]),
    "regression": torch.tensor([[0.5, -1, 3], [1, 2, 3], [0.25, 0, 1]]),
}


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("problem_type", LABELS)
def test_the_loss_of_a_model_is_the_one_by_hand(problem_type, side):
    padded = collator_for(PROCESSOR, padding=PadToLongest(side=side))
    if problem_type == "multi_label_classification":
        rows = rows_of([["cat", "emu"], [0, 0, 0], [0, 0.5, 1]])
    else:
        rows = rows_of(LABELS[problem_type])
    batch = collator_of(problem_type, padded)(rows)
    assert torch.equal(batch["labels"], EXPECTED[problem_type])
    model = model_of(num_labels=3, problem_type=problem_type)
    with torch.no_grad():
        found = model(**batch)
        alone = []
        for row in rows:  # its last token, without any padding
            single = collator_of(problem_type, padded)([row])
            single.pop("labels")
            hidden = model.model(**single).last_hidden_state
            alone.append(hidden[0, -1] @ model.score.weight.T)
    torch.testing.assert_close(found.logits, torch.stack(alone), atol=1e-4, rtol=1e-4)
    expected = loss_by_hand(problem_type, torch.stack(alone), EXPECTED[problem_type])
    torch.testing.assert_close(found.loss, expected, atol=1e-4, rtol=1e-4)


def test_one_number_has_no_axis():
    batch = ClassificationCollator(COLLATOR, problem_type="regression")(rows_of([1, 0.5, -2]))
    assert torch.equal(batch["labels"], torch.tensor([1, 0.5, -2]))
    model = model_of(num_labels=1, problem_type="regression")
    with torch.no_grad():
        found = model(**batch)
    torch.testing.assert_close(found.loss, ((found.logits[:, 0] - batch["labels"]) ** 2).mean())


def test_a_question_ends_with_the_generation_prompt_and_an_answer_with_itself():
    rows = rows_of(LABELS["single_label_classification"])
    texts = {}
    for prompted in (True, False):
        collate = collator_of("single_label_classification", generation_prompt=prompted)
        ids = [collate.encode(row).sample.input_ids for row in rows]
        texts[prompted] = [PROCESSOR.tokenizer.decode(row) for row in ids]
    assert texts[True][1] == texts[False][1] + "<start_of_turn>model\n"
    assert texts[True][2] == texts[False][2]
    assert texts[True][2].endswith("A cat.<end_of_turn>\n")


def test_the_batch_is_that_of_the_collator_without_labels_of_tokens():
    rows = rows_of(LABELS["single_label_classification"])[2:]
    batch = collator_of("single_label_classification")(rows)
    expected = COLLATOR([ROWS[2]])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[key], expected[key]) for key in batch if key != "labels")


def test_it_pickles_and_works_in_workers():
    rows = rows_of(LABELS["single_label_classification"])
    collate = pickle.loads(pickle.dumps(collator_of("single_label_classification")))
    (batch,) = DataLoader(rows, batch_size=3, collate_fn=collate)
    assert batch["labels"].tolist() == [2, 0, 1]
    assert len(batch["pixel_values"]) == 1


SINGLE, MULTI, NUMBERS = LABELS


@pytest.mark.parametrize(
    ("problem_type", "label", "message"),
    [
        (SINGLE, True, "expected the number of a class, found bool True; convert it to an int"),
        (SINGLE, (1,), "found tuple .*for other numbers set problem_type"),
        (SINGLE, 1.0, "found float 1.0; for other numbers set problem_type"),
        (SINGLE, [1], "found list .*for other numbers set problem_type"),
        (SINGLE, float("nan"), "has no label"),
        (SINGLE, None, "has no label"),
        (SINGLE, "cow", "is no known class: found str 'cow', expected one of"),
        (SINGLE, 3, "is no class: found 3, expected 0 to 2"),
        (SINGLE, -100, "is no class: found -100"),
        (SINGLE, 10**30, "is no class"),
        (MULTI, ["cat", "cow"], r"labels\[1\]: is no known class"),
        (MULTI, ["cat", 1], r"labels\[0\]: expected a finite number"),
        (MULTI, [1, 0], "has 2 numbers, expected 3"),
        (MULTI, [1, 0, 2], r"labels\[2\]: expected a number from 0 to 1, found 2"),
        (MULTI, [1, 0, float("nan")], r"labels\[2\]: expected a finite number"),
        (MULTI, [True, False, True], r"labels\[0\]: expected a finite number"),
        (MULTI, 1, "expected a number from 0 to 1 for each class, or a list of names"),
        (NUMBERS, [1, 2, float("inf")], r"labels\[2\]: expected a finite number that float32"),
        (NUMBERS, [1, 2, 1e300], r"labels\[2\]: expected a finite number that float32"),
        (NUMBERS, [1, 2, 10**400], r"labels\[2\]: expected a finite number that float32"),
        (NUMBERS, "3", "expected a list of 3 numbers, found str '3'"),
        (NUMBERS, [], "has 0 numbers, expected 3"),
    ],
)
def test_a_bad_label_is_named(problem_type, label, message):
    collate, seen = collator_of(problem_type), []

    def skip(error):
        seen.append(error.index)
        return []

    rows = rows_of(LABELS[problem_type])
    rows[1]["labels"] = label
    with pytest.raises(ConversationError, match=message) as caught:
        collate(rows)
    assert caught.value.index == 1
    kept = collate.collate(rows, on_error=skip)
    assert seen == [1]
    assert len(kept["labels"]) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "A?", "label": 1, "labels": 1}, "has 'labels' and 'label'; keep one"),
        ({"prompt": "A?"}, "has no label: found a dict with"),
        ({"label": 1}, "expected messages|not a conversation|a dict with"),
        ({"messages": [], "label": 1}, "expected at least one message"),
        ({"prompt": [], "label": 1}, "expected at least one message|empty"),
    ],
)
def test_a_row_without_one_label_or_conversation_is_refused(row, message):
    with pytest.raises(ConversationError, match=message):
        collator_of(SINGLE)([row])


def test_a_name_needs_a_table():
    with pytest.raises(ConversationError, match="since label2id is not set"):
        ClassificationCollator(COLLATOR, num_labels=2).encode({"prompt": "A?", "label": "cat"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the number of classes is unknown; set num_labels or label2id"),
        ({"num_labels": 0}, "num_labels is too small: found 0"),
        ({"num_labels": True}, "num_labels must be an int"),
        ({"num_labels": 2, "label2id": LABEL2ID}, "expected at least 3"),
        ({"label2id": {"cat": "0"}}, "label2id is wrong"),
        ({"label2id": ["cat"]}, "label2id is wrong"),
        ({"problem_type": "ranking"}, "problem_type"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ClassificationCollator(COLLATOR, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shift_labels": True}, "which shift_labels would change"),
        ({"train_on": "last_turn"}, "which train_on would change"),
        ({"empty_reasoning": "mask"}, "which empty_reasoning would change"),
        ({"split_turns": True}, "split_turns would take apart"),
        ({"padding": BlockCausalMask(sliding_window=64)}, "found padding=BlockCausalMask"),
        ({"dummy_media": "batch"}, "dummy media stands behind the last token"),
    ],
)
def test_options_that_a_row_cannot_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        collator_of(SINGLE, collator_for(PROCESSOR, **options))


def test_a_model_with_other_outputs_or_padding_is_refused():
    config = tiny_model(PROCESSOR).config
    config.num_labels = 2
    with pytest.raises(ConfigError, match="the model has 2 outputs, but labels have 3 classes"):
        collator_of(SINGLE, collator_for(PROCESSOR, model_config=config))
    config.num_labels, config.text_config.pad_token_id = 3, None
    with pytest.raises(ConfigError, match=r"would read the class off padding: .*pad_token_id=None"):
        collator_of(SINGLE, collator_for(PROCESSOR, model_config=config))
    config.text_config.pad_token_id = PROCESSOR.tokenizer.pad_token_id
    collator_of(SINGLE, collator_for(PROCESSOR, model_config=config))


@pytest.mark.parametrize("stated", [None, *LABELS])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("problem_type", LABELS)
def test_the_model_computes_the_loss_of_the_labels_or_is_refused(problem_type, number, stated):
    """Without a problem_type, a model takes several numbers to predict for several classes."""
    model = model_of(num_labels=number, problem_type=stated)
    label = {SINGLE: 0, MULTI: [1] * number, NUMBERS: [0.5] * number}[problem_type]
    rows = [{"text": text, "label": label} for text in ("a", "b b")]
    collator = collator_for(PROCESSOR, model_config=model.config)
    try:
        collate = ClassificationCollator(collator, problem_type=problem_type, num_labels=number)
    except ConfigError as error:
        assert "set the same problem_type in both" in str(error)
        assert stated != problem_type
        return
    batch = collate(rows)
    with torch.no_grad():
        found = model(**batch)
    losses: dict[str, Any] = {
        SINGLE: torch.nn.functional.cross_entropy,
        MULTI: torch.nn.functional.binary_cross_entropy_with_logits,
        NUMBERS: torch.nn.functional.mse_loss,
    }
    logits = found.logits[:, 0] if problem_type == NUMBERS and number == 1 else found.logits
    torch.testing.assert_close(found.loss, losses[problem_type](logits, batch["labels"]))


def test_a_model_with_other_numbers_of_the_names_is_refused():
    config = tiny_model(PROCESSOR).config
    config.num_labels = len(LABEL2ID)
    collator = collator_for(PROCESSOR, model_config=config)
    ClassificationCollator(collator, label2id=LABEL2ID)  # the model's names are LABEL_0 and so on
    config.label2id = {name: 2 - number for number, name in enumerate(LABEL2ID)}
    with pytest.raises(ConfigError, match=r"differs from that of the model: .*config.label2id"):
        ClassificationCollator(collator, label2id=LABEL2ID)
    ClassificationCollator(collator, label2id=config.label2id)


def test_what_is_too_long_follows_the_policy():
    rows = rows_of(LABELS[SINGLE])
    length = len(collator_of(SINGLE).encode(rows[1]).sample)
    short = collator_for(PROCESSOR, max_length=length, on_overlong="drop")
    assert collator_of(SINGLE, short)(rows)["labels"].tolist() == [0]
    with pytest.raises(SampleTooLongError):
        collator_of(SINGLE, collator_for(PROCESSOR, max_length=length))(rows)
    with pytest.raises(EmptyBatchError):
        collator_of(SINGLE)([])
    with pytest.raises(EmptyBatchError):
        collator_of(SINGLE).stack([])


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"text": "A cat"}, "A cat"),
        ({"image": IMAGE}, [{"type": "image", "image": IMAGE}]),
        (
            {"image": IMAGE, "text": "A cat"},
            [{"type": "image", "image": IMAGE}, {"type": "text", "text": "A cat"}],
        ),
        (
            {"images": [IMAGE], "text": "A <image> cat"},
            [
                {"type": "text", "text": "A "},
                {"type": "image", "image": IMAGE},
                {"type": "text", "text": " cat"},
            ],
        ),
    ],
)
def test_a_text_and_media_alone_are_a_message_of_the_user(row, content):
    found = collator_of(SINGLE).encode({**row, "label": "dog"})
    expected = COLLATOR.prompt([{"role": "user", "content": content}]).encoded
    assert torch.equal(found.sample.input_ids, expected.input_ids)
    assert found.label == 1


def test_metadata_beside_a_text_is_no_other_format():
    plain, noted = (
        collator_of(SINGLE).encode({"text": "A cat", "label": "dog", **beside})
        for beside in ({}, {"id": 7, "source": "web"})
    )
    assert torch.equal(plain.sample.input_ids, noted.sample.input_ids)
    image = collator_of(SINGLE).encode({"image": IMAGE, "idx": 7, "label": "dog"})
    assert image.sample.media_counts == {"image": 1}
    with pytest.warns(UnreadKeyWarning, match="nothing reads the key 'title'"):
        collator_of(SINGLE).encode({"text": "A cat", "title": "Cats", "label": "dog"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": ["One.", "Two."]}, "text: expected a string, found list"),
        ({"text": "A review.", "instruction": "Is it good?"}, "text: stands beside a question"),
        ({"image": IMAGE, "caption": "A cat"}, "expected a list of messages, or a dict in one"),
    ],
)
def test_no_text_of_a_row_is_lost(row, message):
    with pytest.raises(ConversationError, match=message):
        collator_of(SINGLE).encode({**row, "label": "dog"})


def test_media_of_a_text_is_read_from_the_folder_of_the_format(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    format_ = MessagesFormat(media_root=tmp_path)
    collate = collator_of(SINGLE, collator_for(PROCESSOR, format=format_))
    found = collate.encode({"text": "It?", "image": "a.png", "label": "dog"})
    assert found.sample.media_counts == {"image": 1}
