"""On every family's real processor, a batch is what the processor itself would have made."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from tests.conversations import conversations, given_for_family
from tests.pickling import pickled_copy
from tests.processors import processor_of
from tests.processors.families import FAMILIES
from vlmcollate import IGNORE_INDEX, PadToLongest, collator_for

pytestmark = pytest.mark.parametrize("name", FAMILIES)

SIZES = ([(64, 48)], [(96, 48), (30, 40)], [(40, 90)], [(32, 32), (64, 40), (40, 64)])


def messages_with(sizes):
    images = [
        {"type": "image", "image": Image.new("RGB", size, (40 * i, 80, 7))}
        for i, size in enumerate(sizes)
    ]
    return [
        {"role": "user", "content": [*images, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat on a mat."}]},
    ]


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].dtype == right[key].dtype, key
        assert torch.equal(left[key], right[key]), key


@pytest.mark.parametrize("side", ["right", "left"])
def test_equals_the_processors_own_batch(name, side):
    processor = processor_of(name)
    chats = [messages_with(sizes) for sizes in SIZES]
    theirs = processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": side},
    )

    ours = collator_for(processor, padding=PadToLongest(side=side))(chats)

    assert set(ours) - set(theirs) == {"labels", "n_images_per_sample"}
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype, key
        assert torch.equal(ours[key], value), key
    assert ours["n_images_per_sample"].tolist() == [1, 2, 1, 3]


@given_for_family(messages=conversations(hostile=False, max_images=1))
def test_ids_of_harmless_text_are_the_processors_own(name, messages):
    processor = processor_of(name)
    theirs = processor.apply_chat_template(
        [messages], tokenize=True, return_dict=True, return_tensors="pt"
    )
    sample = collator_for(processor, on_template_omission="raise").encode(messages)
    tokenizer = processor.tokenizer
    assert tokenizer.decode(sample.input_ids) == tokenizer.decode(theirs["input_ids"][0])
    # the ids differ only where an answer begins inside a token; none does without leading space
    answers = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    if all(text[:1].isalnum() and text.isascii() for text in answers):
        assert sample.input_ids.tolist() == theirs["input_ids"][0].tolist()


@given_for_family(data=st.data())
def test_rows_do_not_depend_on_neighbours(name, data):
    collator = collator_for(processor_of(name))
    chats = data.draw(st.lists(conversations(max_turns=2, max_images=1), min_size=2, max_size=3))
    order = data.draw(st.permutations(range(len(chats))))

    batch = collator(chats)
    permuted = collator([chats[i] for i in order])

    for row, i in enumerate(order):
        alone = collator.encode(chats[i])
        for whole, at in ((batch, i), (permuted, row)):
            real = whole["attention_mask"][at].bool()
            assert torch.equal(whole["input_ids"][at][real], alone.input_ids)
            assert torch.equal(whole["labels"][at][real], alone.labels)
            assert (whole["labels"][at][~real] == IGNORE_INDEX).all()


def test_input_is_unchanged_and_pickling_changes_nothing(name):
    collator = collator_for(processor_of(name))
    chats = [messages_with(sizes) for sizes in SIZES]
    before = copy.deepcopy(chats)
    pixels = [part["image"].tobytes() for chat in chats for part in chat[0]["content"][:-1]]

    batch = collator(chats)
    again = pickled_copy(collator)(chats)

    assert_equal(batch, again)
    assert pixels == [part["image"].tobytes() for chat in chats for part in chat[0]["content"][:-1]]
    for chat, copied in zip(chats, before, strict=True):
        assert [m["role"] for m in chat] == [m["role"] for m in copied]
        assert [list(map(set, m["content"])) for m in chat] == [
            list(map(set, m["content"])) for m in copied
        ]


def test_workers_give_the_same_bytes(name):
    chats = [messages_with(sizes) for sizes in SIZES]
    collator = collator_for(processor_of(name))

    def batches(workers):
        return list(
            DataLoader(
                chats,  # type: ignore[arg-type]  # a list is a map-style dataset
                batch_size=2,
                collate_fn=collator,
                num_workers=workers,
            )
        )

    alone = batches(0)
    for workers in (1, 2):
        for batch, other in zip(alone, batches(workers), strict=True):
            assert_equal(batch, other)


def test_shifted_labels_predict_the_next_token(name):
    processor = processor_of(name)
    chats = [messages_with(sizes) for sizes in SIZES[:2]]
    plain = collator_for(processor)(chats)
    shifted = collator_for(processor, shift_labels=True)(chats)
    assert torch.equal(shifted["labels"], plain["labels"][:, 1:])
    assert torch.equal(shifted["input_ids"], plain["input_ids"][:, :-1])
    assert torch.equal(shifted["attention_mask"], plain["attention_mask"][:, :-1])
    assert torch.equal(shifted["pixel_values"], plain["pixel_values"])
    assert all(value.is_contiguous() for value in shifted.values())
