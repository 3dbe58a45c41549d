"""Several completions of one prompt train as each alone, in rows and in one row."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vlmcollate import BlockCausalMask, ConfigError, collator_for
from vlmcollate.encode import stages
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    LabelError,
    MediaError,
    SampleTooLongError,
)
from vlmcollate.objectives import CompletionsCollator
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.testing import tiny_model, tiny_processor

PROCESSOR = tiny_processor()
COLLATOR = collator_for(PROCESSOR)
IMAGE = Image.new("RGB", (56, 56), "teal")
CALL = [
    {"role": "assistant", "content": "Let me see."},
    {"role": "user", "content": "Do."},
    {"role": "assistant", "content": "Teal."},
]
ROWS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": "What colour?"}],
        "images": [IMAGE],
        "completions": ["Teal.", "Teal.", [{"role": "assistant", "content": "A dark cyan."}], CALL],
    },
    {"prompt": "Hi.", "completions": [{"role": "assistant", "content": "Hello!"}, "Ho."]},
    {"prompt": "One?", "completion": "Two."},
]


def alone(row, answer):
    """Returns the sample of a prompt and one answer, in TRL's form."""
    rest = {key: value for key, value in row.items() if not key.startswith("completion")}
    answer = [answer] if isinstance(answer, dict) else answer
    return COLLATOR.encode({**rest, "completion": answer})


def samples_alone():
    return [
        alone(row, answer)
        for row in ROWS
        for answer in row.get("completions", [row.get("completion")])
    ]


def packs(layout="shared_prefix", **options):
    collator = collator_for(PROCESSOR, padding=BlockCausalMask(), **options)
    return CompletionsCollator(collator, layout=layout)


def test_rows_are_those_of_each_completion_alone():
    batch, expected = CompletionsCollator(COLLATOR)(ROWS), COLLATOR.stack(samples_alone())
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[key], expected[key]) for key in batch)
    assert len(batch["input_ids"]) == 7


@pytest.mark.parametrize("layout", ["rows", "shared_prefix"])
def test_the_loss_of_a_model_is_the_one_by_hand(layout):
    collate = CompletionsCollator(COLLATOR) if layout == "rows" else packs()
    model = tiny_model(PROCESSOR).eval()
    ignored = ("document_ids", "branch_ids", "n_images_per_sample")
    inputs = {key: value for key, value in collate(ROWS).items() if key not in ignored}
    total, count = 0.0, 0
    with torch.no_grad():
        found = float(model(**inputs).loss)
        for sample in samples_alone():
            single = COLLATOR.stack([sample])
            labels = single.pop("labels")[0].tolist()
            single.pop("n_images_per_sample", None)
            chances = model(**single).logits[0].softmax(-1)
            for place, token in enumerate(labels):
                if token != IGNORE_INDEX:
                    total -= float(chances[place - 1, token].log())
                    count += 1
    assert found == pytest.approx(total / count, rel=1e-4)


def test_a_shared_prompt_stands_once():
    batch = packs()(ROWS)
    assert batch["branch_ids"].max(1).values.tolist() == [4, 2, 1]
    assert batch["n_images_per_sample"].tolist() == [1, 0, 0]
    for row, labels in zip(batch["branch_ids"], batch["labels"], strict=True):
        assert (row[labels != IGNORE_INDEX] > 0).all()


def test_the_media_of_a_prompt_is_decoded_once(monkeypatch):
    calls = []
    load = vars(stages)["load_media"]

    def counted(*arguments, **options):
        calls.append(arguments)
        return load(*arguments, **options)

    collate = CompletionsCollator(COLLATOR)
    collate.encode(ROWS[0])
    monkeypatch.setattr(stages, "load_media", counted)
    samples = collate.encode(ROWS[0]).samples
    assert len(calls) == 1
    assert len({sample.media["pixel_values"].data_ptr() for sample in samples}) == 1


def test_it_pickles_and_works_in_workers():
    collate = pickle.loads(pickle.dumps(CompletionsCollator(COLLATOR)))
    (batch,) = DataLoader(ROWS, batch_size=3, collate_fn=collate)  # type: ignore[arg-type]
    assert len(batch["labels"]) == 7


def test_what_is_too_long_drops_the_row():
    row = {"prompt": "Hi.", "completions": ["Ho.", "Ho, and many words that follow it."]}
    length = len(alone(row, "Ho.")) + 1

    def collate(policy):
        collator = collator_for(PROCESSOR, max_length=length, on_overlong=policy)
        return CompletionsCollator(collator)

    with pytest.raises(SampleTooLongError, match=r"completions\[1\]: "):
        collate("raise")([row])
    with pytest.raises(EmptyBatchError, match="none of the 1 examples is left"):
        collate("drop")([row])
    assert collate("truncate")([row])["input_ids"].shape == (2, length)


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"prompt": "A?"}, ConversationError, "has no prompt with completions: found a dict"),
        ({"completions": ["A"]}, ConversationError, "has no prompt with completions"),
        (
            {"prompt": "A?", "completion": "A", "completions": ["A"]},
            ConversationError,
            "has no prompt with completions",
        ),
        ({"prompt": "A?", "completions": []}, ConversationError, "completions: is empty"),
        ({"prompt": "A?", "completions": "A"}, ConversationError, "completions: "),
        (
            {"prompt": "A?", "completions": ["B", None]},
            ConversationError,
            r"completions\[1\]: is empty: found nothing",
        ),
        ({"prompt": "A?", "completions": ["B", ""]}, ConversationError, r"completions\[1\]: is em"),
        (
            {"prompt": "A?", "completions": [3]},
            ConversationError,
            r"completions\[0\]: expected a string, a message or a list of messages, found int 3",
        ),
        (
            {"prompt": "A?", "completions": ["B", {"role": "user", "content": "C"}]},
            ConversationError,
            r"completions\[1\]: is no answer: found the roles \['user'\]",
        ),
        (
            {"prompt": "A?", "completions": [[{"role": "assistant"}]]},
            ConversationError,
            r"completions\[0\]\[0\]",
        ),
        (
            {
                "prompt": "A?",
                "completions": [{"role": "assistant", "content": "B", "weight": 0}],
            },
            LabelError,
            r"completions\[0\]: ",
        ),
        (
            {"prompt": "A?", "completions": ["B"], "images": ["/no/such.png"]},
            MediaError,
            r"images\[0\]: ",
        ),
    ],
)
@pytest.mark.parametrize("layout", ["rows", "shared_prefix"])
def test_a_bad_completion_is_named(row, error, message, layout):
    with pytest.raises(error, match=message) as caught:
        packs(layout)([ROWS[1], row])
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a mask that keeps the answers apart: found padding=PadToLongest"),
        (
            {"padding": BlockCausalMask(), "dummy_media": "batch"},
            'has no place for dummy_media="batch"',
        ),
        ({"padding": BlockCausalMask(), "split_turns": True}, "split_turns would take apart"),
    ],
)
def test_options_that_the_layout_cannot_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        CompletionsCollator(collator_for(PROCESSOR, **options), layout="shared_prefix")
    with pytest.raises(ConfigError, match="layout"):
        CompletionsCollator(COLLATOR, layout="trl")  # type: ignore[arg-type]


def test_an_empty_batch_is_refused():
    with pytest.raises(EmptyBatchError):
        CompletionsCollator(COLLATOR).stack([])


SHOWN = [{"role": "assistant", "content": [{"type": "image", "image": IMAGE}]}]


@pytest.mark.parametrize(
    ("row", "where", "message"),
    [
        (
            {"prompt": "A?", "images": [IMAGE], "completions": ["B", "C <image>"]},
            "completions[1]",
            "takes media from a column beside the prompt",
        ),
        (
            {"prompt": "A?", "images": [IMAGE], "completion": "C <image>"},
            "completion",
            "takes media from a column beside the prompt",
        ),
        (
            {
                "prompt": [{"role": "user", "content": [{"type": "image"}]}],
                "completions": [[{"role": "assistant", "content": [{"type": "image"}]}]],
                "images": [IMAGE, IMAGE],
            },
            "images",
            "2 given, .* completions hold their media in their parts",
        ),
    ],
)
def test_the_media_of_the_prompt_is_not_that_of_a_completion(row, where, message):
    with pytest.raises(ConversationError, match=message) as caught:
        CompletionsCollator(COLLATOR).encode(row)
    assert caught.value.where == where


def test_media_in_completions_has_its_place():
    row = {"prompt": "A?", "completions": ["B", SHOWN]}
    samples = CompletionsCollator(COLLATOR).encode(row).samples
    assert [dict(sample.media_counts) for sample in samples] == [{}, {"image": 1}]
    broken = [{"role": "assistant", "content": [{"type": "image", "image": "/no/such.png"}]}]
    with pytest.raises(MediaError) as caught:
        CompletionsCollator(COLLATOR).encode({"prompt": "A?", "completions": ["B", broken]})
    assert caught.value.where == "completions[1][0].content[0]"


def test_a_row_with_media_in_one_of_several_completions_can_be_skipped():
    rows = [ROWS[1], {"prompt": "A?", "completions": ["B", SHOWN]}, ROWS[1]]
    seen = []

    def skip(error):
        seen.append((error.index, error.where))
        return []

    assert len(packs().collate(rows, on_error=skip)["labels"]) == 2
    assert seen == [(1, "completions[1][0].content[0]")]


def test_branches_are_the_completion_whatever_trains():
    """Of a single completion, too, which may hold turns that do not train."""
    row = {"prompt": "A?", "completions": [CALL, "B"]}
    several = packs(train_on="last_turn")([row])["branch_ids"][0].tolist()
    one = packs(train_on="last_turn")([{**row, "completions": [CALL]}])["branch_ids"][0].tolist()
    assert one.count(1) == several.count(1)
    assert one.count(0) == several.count(0)
    untrained = {"role": "assistant", "content": "B", "weight": 0}
    batch = packs(require_labels=False)([{"prompt": "A?", "completion": untrained}])
    trained = packs()([{"prompt": "A?", "completion": "B"}])
    assert torch.equal(batch["branch_ids"], trained["branch_ids"])
