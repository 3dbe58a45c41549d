"""Documents in packs: all text trains once, media never, and nothing is lost at the borders."""

from __future__ import annotations

import pickle
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.processors.cases import collator_of
from vlmcollate import (
    BlockCausalMask,
    ConfigError,
    FlattenedDocuments,
    collator_for,
)
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    MediaError,
    MediaMismatchError,
    SampleError,
    SampleTooLongError,
)
from vlmcollate.formats import TextFormat
from vlmcollate.objectives import DocumentCollator
from vlmcollate.packing import unpack
from vlmcollate.sample import IGNORE_INDEX
from vlmcollate.testing import tiny_model, tiny_processor

PROCESSOR = tiny_processor()
PLAIN = collator_for(PROCESSOR, format="text")
IMAGES = [Image.new("RGB", (56 + 28 * (k % 2), 56), (k, 9, 9)) for k in range(6)]
STOP = PROCESSOR.tokenizer.eos_token_id
PAD, START, END = PROCESSOR.tokenizer.convert_tokens_to_ids(
    ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>"]
)


def text(words):
    return {"type": "text", "text": words}


def image(k):
    return {"type": "image", "image": IMAGES[k]}


ROWS: list[dict[str, Any]] = [
    {"content": [text("A bird that sings "), image(0), image(1), text(" in the old garden")]},
    {"texts": [None, "One", None, "two"], "images": [IMAGES[2], None, IMAGES[3], None]},
    {"text": "The emu <image> runs", "images": [IMAGES[4]]},
    {"content": "Words alone, and many of them, so that they are longer than one pack of these."},
    {"content": [image(5), image(0), image(1)]},
]


def collate_of(length, processor=PROCESSOR, padding=None, **options):
    padding = padding or BlockCausalMask()
    return DocumentCollator(collator_for(processor, max_length=length, padding=padding, **options))


def pieces_of(collate, rows):
    return [piece for pack in collate.packs(rows) for piece in unpack(pack)]


def test_a_short_document_is_that_of_the_text_format():
    row = ROWS[2]
    (pack,) = collate_of(64).packs([row])
    expected = PLAIN.encode(row)
    (found,) = unpack(pack)
    assert torch.equal(found.input_ids, expected.input_ids)
    assert torch.equal(found.labels[1:], expected.labels[1:])
    assert torch.equal(found.media["pixel_values"], expected.media["pixel_values"])


@pytest.mark.parametrize("length", range(10, 40, 3))
def test_all_text_trains_once_and_all_media_is_there(length):
    """Compared with the whole documents, over every kind of border."""
    collate, wide = collate_of(length), collate_of(1000)
    wholes = [wide.encode(row).sample for row in ROWS]
    packs = list(collate.packs(ROWS))
    assert all(len(pack) <= length for pack in packs)
    trained = torch.cat([pack.labels[pack.labels != IGNORE_INDEX] for pack in packs])
    expected = [whole.labels[1:] for whole in wholes]  # nothing predicts the first token
    assert torch.equal(trained, torch.cat([row[row != IGNORE_INDEX] for row in expected]))
    pixels = torch.cat([pack.media["pixel_values"] for pack in packs if pack.media])
    assert torch.equal(pixels, torch.cat([w.media["pixel_values"] for w in wholes if w.media]))
    for piece in pieces_of(collate, ROWS):
        ids = piece.input_ids.tolist()
        assert ids.count(START) == ids.count(END) == sum(piece.media_counts.values())
        grids = piece.media.get("image_grid_thw", torch.zeros(0, 3)).prod(1).sum() // 4
        assert ids.count(PAD) == int(grids) == int((piece.media_ids >= 0).sum())
        assert not (piece.labels[piece.media_ids >= 0] != IGNORE_INDEX).any()


def test_packs_are_full_unless_media_comes_next():
    packs = list(collate_of(16).packs(ROWS))
    following = [unpack(pack)[0].input_ids[0].item() for pack in packs[1:]]
    short = [len(pack) < 16 for pack in packs[:-1]]
    assert any(short) and not all(short)
    for is_short, first in zip(short, following, strict=True):
        assert not is_short or first == START
    words = list(collate_of(16).packs([ROWS[3]] * 5))
    assert all(len(pack) >= 15 for pack in words[:-1])  # one token predicts nothing


def test_positions_restart_with_each_piece():
    for pack in collate_of(24).packs(ROWS):
        start = 0
        for piece in unpack(pack):
            stop = start + len(piece)
            expected = PLAIN.position_ids(piece)
            assert torch.equal(pack.tokens["position_ids"][start:stop], expected)
            start = stop


def test_the_loss_of_a_model_is_the_one_by_hand():
    collate, model = collate_of(24), tiny_model(PROCESSOR).eval()
    encoded = [collate.encode(row) for row in ROWS]
    batch = collate.stack(encoded)
    inputs = {k: v for k, v in batch.items() if k not in ("document_ids", "n_images_per_sample")}
    with torch.no_grad():
        found = float(model(**inputs).loss)
        total, count = 0.0, 0
        for piece in pieces_of(collate, ROWS):
            single = PLAIN.stack([piece])
            labels = single.pop("labels")[0]
            single.pop("n_images_per_sample", None)
            chances = model(**single).logits[0].softmax(-1)
            for place, token in enumerate(labels.tolist()):
                if place and token != IGNORE_INDEX:
                    total -= float(chances[place - 1, token].log())
                    count += 1
    assert found == pytest.approx(total / count, rel=1e-4)


def test_text_never_becomes_a_control_token():
    row = {"content": [text("<|im_end|><|vision_start|><image>"), image(0), text("<|image_pad|>")]}
    for length in (12, 200):
        ids = torch.cat([p.input_ids for p in collate_of(length).packs([row])]).tolist()
        assert ids.count(START) == ids.count(END) == ids.count(STOP) == 1
        assert ids.count(PAD) == 4


def test_a_batch_has_the_packs_as_rows_and_works_in_workers():
    collate = pickle.loads(pickle.dumps(collate_of(24)))
    (batch,) = DataLoader(ROWS, batch_size=len(ROWS), collate_fn=collate)  # type: ignore[arg-type]
    packs = list(collate.packs(ROWS))
    assert batch["input_ids"].shape == (len(packs), 24)
    flat = collate_of(24, padding=FlattenedDocuments())(ROWS)
    assert flat["input_ids"].shape == (1, sum(map(len, packs)))


@pytest.mark.parametrize("family", ["smolvlm", "gemma3"])
def test_other_families_lose_nothing(family):
    processor = tiny_processor(family)
    padding = BlockCausalMask(sliding_window=64) if family == "gemma3" else BlockCausalMask()
    wide = collate_of(1000, processor, padding)
    wholes = [wide.encode(row).sample for row in ROWS]
    length = 12 + max(int((w.media_ids == k).sum()) for w in wholes for k in range(3))
    collate = collate_of(length + 30, processor, padding)
    packs = list(collate.packs(ROWS))
    trained = torch.cat([pack.labels[pack.labels != IGNORE_INDEX] for pack in packs])
    expected = [whole.labels[1:] for whole in wholes]
    assert torch.equal(trained, torch.cat([row[row != IGNORE_INDEX] for row in expected]))
    assert sum(pack.media_counts.get("image", 0) for pack in packs) == 8
    assert len(packs) > 1


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"content": []}, ConversationError, "content: is empty, expected text or media"),
        ({"content": ""}, ConversationError, "content: is empty"),
        ({"content": [text(""), text("")]}, ConversationError, "empty"),
        ({"texts": [], "images": []}, ConversationError, "texts: is empty"),
        ({"texts": [None], "images": [None]}, ConversationError, "texts: is empty"),
        (
            {"texts": ["a", None], "images": [None, None]},
            ConversationError,
            r"texts\[1\]: found no image at this place in 'images', expected a text",
        ),
        (
            {"texts": ["a"], "images": [IMAGES[0]]},
            ConversationError,
            r"texts\[0\]: found an image at this place in 'images', expected no text",
        ),
        (
            {"texts": ["a", "b"], "images": [None]},
            ConversationError,
            "images: has 1 items, expected 2, those of 'texts'",
        ),
        ({"texts": [3], "images": [None]}, ConversationError, r"texts\[0\]: expected a string"),
        ({"texts": "abc"}, ConversationError, "texts"),
        (
            {"content": [text("a"), {"type": "image", "image": None}]},
            ConversationError,
            r"content\[1\]",
        ),
        (
            {"content": [text("a"), {"type": "image", "image": "/no/such.png"}]},
            MediaError,
            r"content\[1\]: ",
        ),
        (
            {"texts": ["a", None], "images": [None, "/no/such.png"]},
            MediaError,
            r"images\[1\]: ",
        ),
        (
            {"content": [{"type": "thinking", "thinking": "Hm."}, text("a")]},
            ConversationError,
            "content: holds more than text and media: found",
        ),
        ({"content": [3]}, ConversationError, r"content\[0\]"),
        ({"content": "a", "text": "b"}, ConversationError, "is no document: .* expected one of"),
        ({"words": "a"}, ConversationError, "is no document"),
        (
            {"content": [text("a"), {"type": "image", "image": Image.new("RGB", (112, 112))}]},
            SampleTooLongError,
            "holds media that is never cut, of up to 19 tokens",
        ),
    ],
)
def test_a_bad_row_is_named(row, error, message):
    collate, seen = collate_of(12), []
    with pytest.raises(error, match=message) as caught:
        collate([ROWS[3], row])
    assert caught.value.index == 1

    def skip(error):
        seen.append(error.index)
        return []

    kept = list(collate.packs([ROWS[3], row, ROWS[3]], on_error=skip))
    assert seen == [1]
    assert len(kept) == len(list(collate.packs([ROWS[3]] * 2)))


def test_documents_that_fit_no_pack_may_be_dropped():
    row = {"content": [image(0), text("a")]}
    assert list(collate_of(5, on_overlong="drop").packs([row])) == []
    with pytest.raises(SampleTooLongError) as caught:
        list(collate_of(5).packs([ROWS[3], row]))
    assert caught.value.index == 1
    with pytest.raises(EmptyBatchError):
        collate_of(5).stack([])
    assert [len(pack) for pack in collate_of(2).packs([{"content": "abcdef"}])][:1] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": BlockCausalMask()}, "needs the length of a pack; set max_length"),
        ({"max_length": 1, "padding": BlockCausalMask()}, "a pack of max_length=1 trains nothing"),
        ({"max_length": 9}, "makes packs, whose documents would attend to each other"),
        (
            {"max_length": 9, "padding": BlockCausalMask(), "on_overlong": "truncate"},
            "splits documents and cuts nothing off",
        ),
        (
            {"max_length": 9, "padding": BlockCausalMask(), "dummy_media": "sample"},
            "have no place for dummy media",
        ),
    ],
)
def test_options_that_documents_cannot_have_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DocumentCollator(collator_for(PROCESSOR, **options))


def test_empty_places_of_arrow_are_no_items():
    rows = [
        {"texts": ["One", ""], "images": [{"bytes": None, "path": None}, IMAGES[0]]},
        {"texts": ["One", None], "images": [None, IMAGES[0]]},
    ]
    one, other = (next(iter(collate_of(64).packs([row]))) for row in rows)
    assert torch.equal(one.input_ids, other.input_ids)


def test_parts_may_be_json():
    row = {"content": ' [{"type": "text", "text": "One"}]'}
    (pack,) = collate_of(64).packs([row])
    assert PROCESSOR.tokenizer.decode(pack.input_ids) == "One<|im_end|>"


def test_rows_of_arrow_and_pandas_are_read():
    row = {
        "texts": np.array(["One", None, "two"], dtype=object),
        "images": np.array([None, IMAGES[0], None], dtype=object),
        "metadata": "{}",
    }
    (pack,) = collate_of(64).packs([row])
    assert pack.media_counts["image"] == 1


def test_images_that_are_tiled_by_their_number_are_not_split():
    collator = collator_of("LlavaOnevisionProcessor")
    row = {"content": [image(1), text("One and two"), image(1), text("three"), image(1)]}
    whole = attrs.evolve(collator, max_length=500, padding=BlockCausalMask())
    assert len(list(DocumentCollator(whole).packs([row]))) == 1
    small = DocumentCollator(attrs.evolve(whole, max_length=9))
    with pytest.raises(MediaMismatchError, match=r"content\[0\]: .* so it cannot be split"):
        small([row])


def test_media_beside_content_fills_its_empty_parts_and_tags():
    whole = {"content": [image(0), text("One")]}
    rows = [
        {"content": [{"type": "image"}, text("One")], "images": [IMAGES[0]]},
        {"content": "<image>One", "images": [IMAGES[0]]},
        {"content": ["One"], "image": IMAGES[0]},
    ]
    (expected,) = collate_of(64).packs([whole])
    for row in rows:
        (pack,) = collate_of(64).packs([row])
        assert torch.equal(pack.input_ids, expected.input_ids)
        assert torch.equal(pack.media["pixel_values"], expected.media["pixel_values"])


@pytest.mark.parametrize(
    ("row", "where", "message"),
    [
        ({**ROWS[0], "images": [IMAGES[5]]}, "images", "1 given, but the messages hold 0 empty"),
        ({**ROWS[1], "audios": [np.zeros(9)]}, "audios", "is media without a place among"),
        ({"texts": ["One", None], "image": [None, IMAGES[0]]}, "image", "is media without a place"),
        (
            {"content": [{**text("One"), "weight": 0}, text("two")]},
            "content",
            "a part has a weight, but all text of a document trains alike",
        ),
        ({"texts": ["One"], "weight": 0}, None, "nothing is trained"),
        ({"content": "One", "messages": []}, None, "is no document: .*'messages'"),
        ({"messages": [{"role": "user", "content": "One"}]}, None, "is no document"),
    ],
)
def test_nothing_beside_the_parts_is_ignored(row, where, message):
    with pytest.raises(SampleError, match=message) as caught:
        collate_of(64).encode(row)
    assert caught.value.where == where


def test_a_weight_is_that_of_the_text():
    for row in ({"content": ["One"]}, {"texts": ["One"]}, {"text": "One"}):
        (pack,) = collate_of(64).packs([{**row, "weight": 0.5}])
        assert set(pack.tokens["loss_weights"][pack.labels != IGNORE_INDEX].tolist()) == {0.5}


def test_the_column_and_the_folder_are_those_of_the_format(tmp_path):
    IMAGES[0].save(tmp_path / "a.png")
    format_ = TextFormat(column="body", media_root=tmp_path)
    rows = [
        {"body": "<image>One", "images": ["a.png"]},
        {"content": [{"type": "image", "image": "a.png"}, text("One")]},
        {"texts": [None, "One"], "images": ["a.png", None]},
    ]
    (expected,) = collate_of(64).packs([{"content": [image(0), text("One")]}])
    for row in rows:
        (pack,) = collate_of(64, format=format_).packs([row])
        assert torch.equal(pack.input_ids, expected.input_ids)
    with pytest.raises(ConversationError, match="'texts' beside 'images', and 'body'"):
        collate_of(64, format=format_).encode({"text": "One"})
    with pytest.raises(ConfigError, match="reads documents: found format='llava'"):
        collate_of(64, format="llava")


@pytest.mark.parametrize("form", [{"content": "One"}, {"texts": ["One"]}, {"text": "One"}])
def test_other_columns_are_refused_if_the_policy_says_so(form):
    row = {**form, "title": "A"}
    with pytest.raises(ConversationError, match="nothing reads the key 'title'"):
        collate_of(64, on_unread="raise").encode(row)
    collate_of(64, on_unread="allow").encode(row)
    collate_of(64, on_unread="raise").encode({**form, "id": 3})


@pytest.mark.parametrize("form", ["content", "texts", "text"])
def test_an_error_of_the_text_names_its_column(form):
    words = "One <|im_end|>"
    row = {form: [words] if form == "texts" else words}
    with pytest.raises(ConversationError) as caught:
        collate_of(64, special_tokens_in_text="error").encode(row)
    assert caught.value.where == form
