"""Bad rows of collators of preferences and other objectives are skipped and counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vlmcollate import BlockCausalMask, ConfigError, Resample, RobustCollator, collator_for
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    MediaError,
    SampleTooLongError,
    StrategyError,
    TooManyFailuresError,
)
from vlmcollate.objectives import (
    ClassificationCollator,
    CompletionsCollator,
    DocumentCollator,
    EmbeddingCollator,
)
from vlmcollate.preference import KTOCollator, PreferenceCollator, RewardCollator
from vlmcollate.testing import tiny_processor

PACKS: dict[str, Any] = {"max_length": 64, "padding": BlockCausalMask()}


def shown(number: int) -> Image.Image:
    return Image.new("RGB", (56, 56 + 28 * (number % 2)), (40 * number, 90, 7))


def pair(image: Any, number: int) -> dict[str, Any]:
    sides = {"chosen": f"Red, {number}.", "rejected": "Blue. " * (number + 1)}
    return {"images": [image], "prompt": f"What is {number}?", **sides}


def answer(image: Any, number: int) -> dict[str, Any]:
    given = {"completion": f"Red, {number}.", "label": number % 2 == 0}
    return {"images": [image], "prompt": f"What is {number}?", **given}


def labelled(image: Any, number: int) -> dict[str, Any]:
    return {"image": image, "text": f"What is {number}?", "label": number % 3}


def anchored(image: Any, number: int) -> dict[str, Any]:
    others = {"positive": "An emu.", "negatives": ["A cat."] * (number % 3)}
    return {"anchor": {"text": f"Number {number}", "image": image}, **others}


def completed(image: Any, number: int) -> dict[str, Any]:
    given = {"completions": [f"Red, {number}.", "No."]}
    return {"images": [image], "prompt": f"What is {number}?", **given}


def document(image: Any, number: int) -> dict[str, Any]:
    picture = {"type": "image", "image": image}
    return {"content": [{"type": "text", "text": "One. " * (10 * number + 1)}, picture]}


def several(collator: Any) -> ClassificationCollator:
    return ClassificationCollator(collator, num_labels=3)


KINDS: dict[str, tuple[Any, Any]] = {
    "PreferenceCollator": (PreferenceCollator, pair),
    "RewardCollator": (RewardCollator, pair),
    "KTOCollator": (KTOCollator, answer),
    "ClassificationCollator": (several, labelled),
    "EmbeddingCollator": (EmbeddingCollator, anchored),
    "CompletionsCollator": (CompletionsCollator, completed),
    "DocumentCollator": (DocumentCollator, document),
}


@pytest.fixture(params=KINDS)
def kind(request):
    make, row = KINDS[request.param]
    options: dict[str, Any] = PACKS if make is DocumentCollator else {}
    return make(collator_for(tiny_processor(), **options)), row


def rows_of(row, bad=()):
    return [row("/nowhere/missing.png" if k in bad else shown(k), k) for k in range(8)]


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, msg=key)


def test_a_bad_row_is_skipped_and_counted(kind):
    collator, row = kind
    batch = RobustCollator(collator=collator)(rows_of(row, bad=(0, 3)))
    assert batch.pop("n_failed_samples").item() == 2
    good = [one for k, one in enumerate(rows_of(row)) if k not in (0, 3)]
    check_equal(batch, collator(good))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_workers_of_a_loader_skip_what_is_bad(kind, workers):
    collator, row = kind
    robust = RobustCollator(collator=collator, on_error="skip")
    loader = DataLoader(
        rows_of(row, bad=(1, 6)), batch_size=4, num_workers=workers, collate_fn=robust
    )
    batches = list(loader)
    assert [batch.pop("n_failed_samples").item() for batch in batches] == [1, 1]
    good = rows_of(row)
    check_equal(batches[0], collator([good[0], *good[2:4]]))
    check_equal(batches[1], collator([*good[4:6], good[7]]))


def test_another_row_replaces_a_bad_one(kind):
    collator, row = kind
    policy = Resample([row(shown(5), 5)], seed=1)
    batch = RobustCollator(collator=collator, on_error=policy)(rows_of(row, bad=(2,)))
    assert batch.pop("n_failed_samples").item() == 1
    expected = rows_of(row)
    expected[2] = expected[5]
    check_equal(batch, collator(expected))


def test_a_row_that_is_raised_has_its_place(kind):
    collator, row = kind
    with pytest.raises(MediaError) as raised:
        RobustCollator(collator=collator, on_error="raise")(rows_of(row, bad=(4,)))
    assert raised.value.index == 4
    assert raised.value.where


def test_a_run_of_bad_rows_ends_the_training(kind):
    collator, row = kind
    robust = RobustCollator(collator=collator, max_failures=3)
    robust(rows_of(row, bad=(6, 7)))
    with pytest.raises(TooManyFailuresError, match="4 samples in a row failed") as raised:
        robust(rows_of(row, bad=(0, 1)))
    assert isinstance(raised.value.__cause__, MediaError)
    assert raised.value.__cause__.index == 1


def test_a_batch_without_a_good_row_is_an_error(kind):
    collator, row = kind
    with pytest.raises(EmptyBatchError, match="none of the 8 examples is left"):
        RobustCollator(collator=collator)(rows_of(row, bad=range(8)))


def test_no_row_stands_for_a_bad_one(kind):
    collator, _ = kind
    with pytest.raises(ConfigError, match="has no row that trains nothing") as raised:
        RobustCollator(collator=collator, on_error="dummy_sample")
    assert type(collator).__name__ in str(raised.value)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("PreferenceCollator", "rejected"),
        ("KTOCollator", "label"),
        ("EmbeddingCollator", "positive"),
    ],
)
def test_rows_without_what_they_need_are_bad_rows(name, column):
    make, row = KINDS[name]
    rows = rows_of(row)
    del rows[1][column]
    collator = make(collator_for(tiny_processor()))
    batch = RobustCollator(collator=collator)(rows)
    assert batch["n_failed_samples"].item() == 1
    with pytest.raises(ConversationError, match=r"sample 1: has (no|0)") as raised:
        collator(rows)
    assert raised.value.index == 1


def test_long_rows_are_bad_rows_unless_they_are_dropped():
    rows = [pair(shown(0), 0), {**pair(shown(1), 1), "rejected": "No. " * 90}]
    strict = PreferenceCollator(collator_for(tiny_processor(), max_length=60))
    assert RobustCollator(collator=strict)(rows)["n_failed_samples"].item() == 1
    with pytest.raises(SampleTooLongError, match="sample 1, rejected"):
        RobustCollator(collator=strict, on_error="raise")(rows)
    drops = PreferenceCollator(collator_for(tiny_processor(), max_length=60, on_overlong="drop"))
    assert RobustCollator(collator=drops)(rows)["n_failed_samples"].item() == 0
    policy = Resample(rows[1:], max_retries=2)
    with pytest.raises(TooManyFailuresError, match="2 other samples failed"):
        RobustCollator(collator=drops, on_error=policy)([pair("/nowhere/missing.png", 1)])


def test_a_bug_is_no_bad_row(kind, monkeypatch):
    collator, row = kind

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(type(collator.collator.media), "load_image", broken)
    with pytest.raises(StrategyError, match="ZeroDivisionError"):
        RobustCollator(collator=collator)(rows_of(row))


def test_one_answer_alone_has_no_other_half():
    rows = [answer(shown(0), 0), answer("/nowhere/missing.png", 1)]
    robust = RobustCollator(collator=KTOCollator(collator_for(tiny_processor())))
    with pytest.raises(ConfigError, match=r"one row has no other answer.*Resample"):
        robust(rows)


@pytest.mark.parametrize("other", [PreferenceCollator, KINDS, None, lambda rows: rows])
def test_what_is_no_collator_is_refused(other):
    with pytest.raises(ConfigError, match="collator must be a collator"):
        RobustCollator(collator=other)
