"""The layouts of batches, what is too long, and options that batches cannot hold."""

from __future__ import annotations

import attrs
import pytest
import torch
from PIL import Image

from vlmcollate import BlockCausalMask, ConfigError, collator_for
from vlmcollate.errors import ConversationError, EmptyBatchError, SampleTooLongError
from vlmcollate.preference import KTOCollator, PreferenceCollator, RewardCollator
from vlmcollate.testing import tiny_processor

PROCESSOR = tiny_processor()
IMAGES = [Image.new("RGB", (60, 40 + 28 * k), "teal") for k in range(3)]
STOP = PROCESSOR.tokenizer.convert_tokens_to_ids("<|im_end|>")


def pair(number, *, chosen="Yes.", rejected="No, never.", image=True):
    parts = [{"type": "image", "image": IMAGES[number]}] if image else []
    question = [*parts, {"type": "text", "text": f"Is it {number}?"}]
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def long_pair(turns, **answers):
    row = pair(0, **answers)
    earlier = []
    for k in range(turns):
        earlier += [
            {"role": "user", "content": f"Earlier {k}?"},
            {"role": "assistant", "content": f"Answer {k}."},
        ]
    return {**row, "prompt": [*earlier, *row["prompt"]]}


def test_trl_has_the_chosen_rows_first_and_a_mask_instead_of_labels():
    collator = collator_for(PROCESSOR)
    rows = [pair(0), pair(1, chosen="A longer answer."), pair(2, image=False)]
    encoded = [PreferenceCollator(collator).encode(row) for row in rows]
    batch = PreferenceCollator(collator)(rows)
    samples = [e.chosen for e in encoded] + [e.rejected for e in encoded]
    expected = collator.stack(samples)
    labels = expected.pop("labels")
    assert batch.keys() == expected.keys() - {"n_images_per_sample"} | {"completion_mask"}
    for key, value in expected.items():
        assert key == "n_images_per_sample" or torch.equal(batch[key], value)
    assert torch.equal(batch["completion_mask"], (labels != -100).long())
    assert (batch["input_ids"] * batch["completion_mask"] == STOP).sum() == 6


def test_side_by_side_is_two_batches():
    collator = collator_for(PROCESSOR)
    rows = [pair(0), pair(1)]
    encoded = [PreferenceCollator(collator).encode(row) for row in rows]
    batch = PreferenceCollator(collator, layout="side_by_side")(rows)
    for side in ("chosen", "rejected"):
        expected = collator.stack([getattr(e, side) for e in encoded])
        for key, value in expected.items():
            assert torch.equal(batch.pop(f"{side}_{key}"), value)
    assert not batch


def test_a_shared_prefix_is_one_row_a_pair():
    collator = collator_for(PROCESSOR, padding=BlockCausalMask())
    rows = [pair(0), pair(1, chosen="A longer answer.")]
    pairs = PreferenceCollator(collator, layout="shared_prefix")
    batch = pairs(rows)
    assert len(batch["input_ids"]) == 2
    assert batch["attention_mask"].ndim == 4
    for row, given in enumerate(rows):
        encoded = pairs.encode(given)
        for branch, sample in ((1, encoded.chosen), (2, encoded.rejected)):
            labels = batch["labels"][row][batch["branch_ids"][row] == branch]
            assert torch.equal(labels[labels != -100], sample.labels[sample.labels != -100])
    assert len(batch["image_grid_thw"]) == 2
    with pytest.raises(ConfigError, match="needs a mask that keeps the answers apart"):
        PreferenceCollator(collator_for(PROCESSOR), layout="shared_prefix")


@pytest.mark.parametrize("pixels", ["bfloat16", "uint8"])
def test_pixels_have_the_collators_format(pixels):
    batch = PreferenceCollator(collator_for(PROCESSOR, pixels=pixels))([pair(0)])
    expected = collator_for(PROCESSOR, pixels=pixels).stack(
        [PreferenceCollator(collator_for(PROCESSOR)).encode(pair(0)).chosen] * 2
    )
    assert type(batch["pixel_values"]) is type(expected["pixel_values"])


def test_log_probabilities_of_a_reference_are_kept():
    row = {**pair(0), "ref_chosen_logps": -1.5, "ref_rejected_logps": -2.5}
    batch = PreferenceCollator(collator_for(PROCESSOR))([row, row])
    assert torch.equal(batch["ref_chosen_logps"], torch.tensor([-1.5, -1.5]))
    assert torch.equal(batch["ref_rejected_logps"], torch.tensor([-2.5, -2.5]))


def test_the_other_half_is_each_prompt_with_the_answer_before_it():
    collator = collator_for(PROCESSOR)
    rows = [
        {**pair(k), "completion": [{"role": "assistant", "content": f"Answer {k}."}], "label": k}
        for k in range(2)
    ]
    rows = [{key: row[key] for key in ("prompt", "completion", "label")} for row in rows]
    batch = KTOCollator(collator)(rows)
    swapped = [
        {**rows[0], "completion": rows[1]["completion"]},
        {**rows[1], "completion": rows[0]["completion"]},
    ]
    expected = KTOCollator(collator, with_kl=False)(swapped)
    media = {"pixel_values", "image_grid_thw"}
    for key in expected.keys() - media - {"label"}:
        assert torch.equal(batch[f"KL_{key}"], expected[key])
    for key in media:
        assert torch.equal(batch[key], expected[key])
    assert batch["label"].tolist() == [False, True]
    assert batch["label"].dtype == torch.bool
    own = KTOCollator(collator, with_kl=False)(rows)
    assert batch.keys() - own.keys() == {f"KL_{key}" for key in own.keys() - media - {"label"}}
    with pytest.raises(ConfigError, match="a batch of one row has no other answer"):
        KTOCollator(collator)(rows[:1])
    alike = KTOCollator(collator)([rows[0], {**rows[1], "completion": rows[0]["completion"]}])
    assert torch.equal(alike["KL_input_ids"], alike["input_ids"])  # as in TRL


def test_an_answer_with_media_has_no_other_half():
    content = [{"type": "image", "image": IMAGES[0]}, {"type": "text", "text": "So."}]
    row = {
        "prompt": "Draw it.",
        "completion": [{"role": "assistant", "content": content}],
        "label": True,
    }
    assert KTOCollator(collator_for(PROCESSOR), with_kl=False)([row, row])
    with pytest.raises(ConfigError, match="an answer holds media"):
        KTOCollator(collator_for(PROCESSOR))([row, row])


def test_both_sides_lose_the_same_turns():
    row = long_pair(4, chosen="Yes.", rejected="No. " * 20)
    whole = PreferenceCollator(collator_for(PROCESSOR)).encode(row)
    most = len(whole.rejected) - 10
    assert len(whole.chosen) < most
    shorter = collator_for(PROCESSOR, max_length=most, on_overlong="drop_turns")
    found = PreferenceCollator(shorter).encode(row)
    lost = len(whole.rejected) - len(found.rejected)
    assert lost >= 10
    assert len(whole.chosen) - len(found.chosen) == lost
    assert "Earlier 0" not in PROCESSOR.tokenizer.decode(found.chosen.input_ids)
    with pytest.raises(SampleTooLongError):
        PreferenceCollator(attrs.evolve(shorter, max_length=30)).encode(row)


def test_truncation_keeps_the_prompt_of_both_sides():
    row = pair(0, chosen="Yes. " * 30, rejected="No. " * 5)
    whole = PreferenceCollator(collator_for(PROCESSOR)).encode(row)
    most = len(whole.rejected) + 3
    shorter = collator_for(PROCESSOR, max_length=most, on_overlong="truncate")
    found = PreferenceCollator(shorter).encode(row)
    assert len(found.chosen) == most
    assert torch.equal(found.chosen.input_ids, whole.chosen.input_ids[:most])
    assert torch.equal(found.rejected.input_ids, whole.rejected.input_ids)
    prompt = int((whole.rejected.labels == -100).sum())
    with pytest.raises(SampleTooLongError, match="nothing to train"):
        PreferenceCollator(attrs.evolve(shorter, max_length=prompt - 1)).encode(row)


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_pair_is_dropped_whole(side):
    row = pair(0, **{side: "Never. " * 60})
    collate = PreferenceCollator(collator_for(PROCESSOR, max_length=100, on_overlong="drop"))
    assert len(collate([row, pair(1)])["input_ids"]) == 2
    with pytest.raises(EmptyBatchError, match="none of the 1 examples is left"):
        collate([row])


def test_what_fails_can_be_skipped():
    collate = PreferenceCollator(collator_for(PROCESSOR))
    failed = []

    def skip(error):
        failed.append(error)
        return []

    batch = collate.collate([{**pair(0), "chosen": []}, pair(1)], on_error=skip)
    assert [error.index for error in failed] == [0]
    assert len(batch["input_ids"]) == 2


def test_a_kl_row_that_is_too_long_is_truncated():
    rows = [
        {"prompt": f"Say {word}", "completion": completion, "label": True}
        for word, completion in (("much. " * 20, "Yes."), ("little.", "No. " * 20))
    ]
    collator = collator_for(PROCESSOR)
    longest = max(len(KTOCollator(collator).encode(row).sample) for row in rows)
    most = collator_for(PROCESSOR, max_length=longest)
    batch = KTOCollator(most)(rows)
    assert batch["KL_input_ids"].shape[1] == longest
    assert batch["KL_completion_mask"].any(1).all()


@pytest.mark.parametrize("kind", [PreferenceCollator, RewardCollator, KTOCollator])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split_turns": True}, "split_turns would take apart"),
        ({"shift_labels": True}, "remove shift_labels"),
        ({"padding": BlockCausalMask()}, "lays out packs"),
    ],
)
def test_options_that_a_batch_cannot_hold_are_refused(kind, options, words):
    with pytest.raises(ConfigError, match=words):
        kind(collator_for(PROCESSOR, **options))


def test_wrong_arguments_are_refused():
    with pytest.raises(ConfigError, match="expected a collator; pass collator_for"):
        PreferenceCollator(PROCESSOR)
    with pytest.raises(ConfigError, match="layout is wrong: found 'dpo', expected one of"):
        PreferenceCollator(collator_for(PROCESSOR), layout="dpo")  # type: ignore[arg-type]


def test_a_fractional_weight_has_no_place_in_a_mask():
    row = pair(0)
    row["chosen"] = [{**row["chosen"][0], "weight": 0.5}]
    with pytest.raises(ConfigError, match="weight other than 0 and 1"):
        PreferenceCollator(collator_for(PROCESSOR))([row])
    batch = PreferenceCollator(collator_for(PROCESSOR), layout="side_by_side")([row])
    assert batch["chosen_loss_weights"].max() == 0.5


def test_an_empty_batch_is_refused():
    with pytest.raises(EmptyBatchError, match="no example to collate"):
        PreferenceCollator(collator_for(PROCESSOR))([])
    for collate in (PreferenceCollator, RewardCollator, KTOCollator):
        with pytest.raises(EmptyBatchError):
            collate(collator_for(PROCESSOR)).stack([])


@pytest.mark.parametrize("layout", ["trl", "side_by_side"])
def test_text_without_a_chat_is_refused(layout):
    collate = PreferenceCollator(collator_for(PROCESSOR, format="text"), layout=layout)
    rows = {side: {"text": "One text."} for side in ("chosen", "rejected")}
    with pytest.raises(ConversationError, match="is one plain text"):
        collate([rows])
