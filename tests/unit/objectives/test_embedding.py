"""Anchors, positives and negatives, and a contrastive loss of a real model."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vlmcollate import ConfigError, PadToLongest, collator_for
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    MediaError,
    SampleTooLongError,
)
from vlmcollate.formats import MessagesFormat
from vlmcollate.objectives import EmbeddingCollator
from vlmcollate.testing import tiny_model, tiny_processor

PROCESSOR = tiny_processor("qwen3_vl")
COLLATOR = collator_for(PROCESSOR)
IMAGE, OTHER = (Image.new("RGB", (64, 64 + 32 * k), "teal") for k in range(2))
ROWS = [
    {"anchor": "A bird", "positive": IMAGE, "negatives": ["A cat", {"image": OTHER, "text": "x"}]},
    {"query": {"text": "Red?", "image": IMAGE}, "pos": ["A rose"], "neg": ["Grass in the sun"]},
    {"anchor": [{"role": "user", "content": "Two?"}], "positive": {"question": "1 + 1?"}},
]


def texts_of(group):
    samples = [group.anchor, group.positive, *group.negatives]
    return [PROCESSOR.tokenizer.decode(sample.input_ids) for sample in samples]


def prompt(text, system=""):
    start = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{start}<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def embed(model, batch):
    """Returns the states of the last tokens that are attended to, on either side of padding."""
    inputs = {key: value for key, value in batch.items() if key != "group_ids"}
    states = model.model(**inputs).last_hidden_state
    last = batch["attention_mask"].cumsum(1).argmax(1)
    return torch.nn.functional.normalize(states[torch.arange(len(last)), last], dim=-1)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_contrastive_loss_is_the_one_by_hand(side):
    collate = EmbeddingCollator(collator_for(PROCESSOR, padding=PadToLongest(side=side)))
    model = tiny_model(PROCESSOR).eval()
    batch = collate(ROWS)
    assert batch["group_ids"].tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 1]
    assert not {"labels", "n_images_per_sample"} & batch.keys()
    with torch.no_grad():
        found = embed(model, batch)
        loss = torch.nn.functional.cross_entropy(found[:3] @ found[3:].T / 0.05, torch.arange(3))
        alone: list[list[torch.Tensor]] = []
        for encoded in map(collate.encode, ROWS):
            alone.append([])
            for sample in (encoded.anchor, encoded.positive, *encoded.negatives):
                single = collate.collator.stack([sample])
                for key in ("labels", "n_images_per_sample"):
                    single.pop(key, None)
                state = model.model(**single).last_hidden_state[0, -1]
                alone[-1].append(state / state.pow(2).sum().sqrt())
    candidates = [group[1] for group in alone] + [one for group in alone for one in group[2:]]
    by_hand = 0.0
    for number, group in enumerate(alone):
        scores = [float(group[0] @ candidate) / 0.05 for candidate in candidates]
        chances = torch.tensor(scores).exp()
        by_hand -= float((chances[number] / chances.sum()).log()) / len(alone)
    assert float(loss) == pytest.approx(by_hand, rel=1e-3)


def test_every_form_of_an_input_is_the_same_conversation():
    with_image = "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
    collate = EmbeddingCollator(COLLATOR)
    found = [texts_of(collate.encode(row)) for row in ROWS]
    assert found[0][0] == prompt("A bird")
    assert found[0][1] == prompt(with_image)
    assert found[0][2] == prompt("A cat")
    assert found[0][3].endswith("<|vision_end|>x<|im_end|>\n<|im_start|>assistant\n")
    assert found[1] == [prompt(f"{with_image}Red?"), prompt("A rose"), prompt("Grass in the sun")]
    assert found[2] == [prompt("Two?"), prompt("1 + 1?")]


@pytest.mark.parametrize(
    "row",
    [
        {"query": "A?", "positive": "B", "negative": ["C", "D"]},
        {"anchor": "A?", "positive": "B", "negative_2": "D", "negative_1": "C"},
        {"query": "A?", "pos": ["B"], "neg": ["C", "D"], "prompt": None},
        {
            "messages": [{"role": "user", "content": "A?"}],
            "positive_messages": [[{"role": "user", "content": "B"}]],
            "negative_messages": [
                [{"role": "user", "content": "C"}],
                [{"role": "user", "content": "D"}],
            ],
        },
    ],
)
def test_the_columns_of_other_libraries_are_read(row):
    found = texts_of(EmbeddingCollator(COLLATOR).encode(row))
    assert found == [prompt("A?"), prompt("B"), prompt("C"), prompt("D")]


def test_images_beside_the_inputs_belong_to_the_anchor():
    row = {"query": "What is <image>?", "images": [IMAGE], "positive": "Teal"}
    group = EmbeddingCollator(COLLATOR).encode(row)
    assert dict(group.anchor.media_counts) == {"image": 1}
    assert dict(group.positive.media_counts) == {}


def test_instructions_are_system_messages():
    collate = EmbeddingCollator(COLLATOR, instructions={"anchor": "Find it.", "negative": "N"})
    system = [{"role": "system", "content": "Mine"}, {"role": "user", "content": "C"}]
    found = texts_of(collate.encode({"anchor": "A", "positive": "B", "negatives": ["D", system]}))
    assert found == [prompt("A", "Find it."), prompt("B"), prompt("D", "N"), prompt("C", "Mine")]


def test_the_generation_prompt_is_optional_and_follows_no_answer():
    answered = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    row = {"anchor": answered, "positive": "C"}
    found = texts_of(EmbeddingCollator(COLLATOR).encode(row))
    assert found[0].endswith("assistant\nB<|im_end|>\n")
    assert found[1].endswith("assistant\n")
    bare = texts_of(EmbeddingCollator(COLLATOR, generation_prompt=False).encode(row))
    assert bare == [found[0], "<|im_start|>user\nC<|im_end|>\n"]


def test_columns_are_batches_with_prefixes():
    collate = EmbeddingCollator(COLLATOR, layout="columns")
    rows = [{"anchor": f"A {k}", "positive": IMAGE, "negatives": ["B", "C"]} for k in range(2)]
    batch = collate(rows)
    prefixes = {key.removesuffix("_input_ids") for key in batch if key.endswith("_input_ids")}
    assert prefixes == {"anchor", "positive", "negative_1", "negative_2"}
    one = COLLATOR.prompts([[{"role": "user", "content": "C"}]] * 2)
    assert torch.equal(batch["negative_2_input_ids"], one["input_ids"])
    assert batch["positive_image_grid_thw"].shape == (2, 3)
    assert "anchor_pixel_values" not in batch
    single = collate([{**row, "negatives": ["B"]} for row in rows])
    assert "negative_input_ids" in single
    assert not any(key.startswith("negative") for key in collate([{**rows[0], "negatives": []}]))
    with pytest.raises(ConfigError, match="rows have 1 and 2 negatives"):
        collate([rows[0], {**rows[1], "negatives": ["B"]}])


def test_truncation_cuts_the_end_and_no_media():
    def collate(length, policy="truncate"):
        return EmbeddingCollator(collator_for(PROCESSOR, max_length=length, on_overlong=policy))

    row = {"anchor": "one two three four five", "positive": "B"}
    whole = EmbeddingCollator(COLLATOR).encode(row)
    cut = collate(9).encode(row)
    assert torch.equal(cut.anchor.input_ids, whole.anchor.input_ids[:9])
    with_image = {"anchor": "A", "positive": IMAGE}
    with pytest.raises(SampleTooLongError, match=r"positive: .* hold media, which is never cut"):
        collate(8).encode(with_image)
    with pytest.raises(EmptyBatchError):
        collate(9, "drop")([row])
    with pytest.raises(SampleTooLongError, match="anchor: "):
        collate(9, "raise")([row])


def test_dummy_media_is_masked():
    collate = EmbeddingCollator(collator_for(PROCESSOR, dummy_media="batch"))
    rows = [{"anchor": "A bird", "positive": "An emu"}]
    batch, plain = collate(rows), EmbeddingCollator(COLLATOR)(rows)
    assert "pixel_values" in batch
    model = tiny_model(PROCESSOR).eval()
    with torch.no_grad():
        torch.testing.assert_close(embed(model, batch), embed(model, plain), atol=1e-4, rtol=1e-4)


def test_it_pickles_and_works_in_workers():
    collate = pickle.loads(pickle.dumps(EmbeddingCollator(COLLATOR)))
    (batch,) = DataLoader(ROWS, batch_size=3, collate_fn=collate)  # type: ignore[arg-type]
    assert len(batch["input_ids"]) == 9


def test_hundreds_of_negatives_are_rows():
    row = {"anchor": "A", "positive": "B", "negatives": [f"C {k}" for k in range(300)]}
    assert len(EmbeddingCollator(COLLATOR)([row])["group_ids"]) == 302


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"anchor": "A"}, ConversationError, "has 0 inputs for 'positive': .* under 'positive' or"),
        ({"positive": "A"}, ConversationError, "has 0 inputs for 'anchor'"),
        ({"anchor": "A", "query": "A", "positive": "B"}, ConversationError, "has 2 inputs for"),
        ({"anchor": "A", "pos": ["B", "C"]}, ConversationError, "has 2 inputs for 'positive'"),
        ({"anchor": "", "positive": "B"}, ConversationError, "anchor: is empty: found str ''"),
        ({"anchor": "A", "positive": {"text": None}}, ConversationError, "positive: is empty"),
        (
            {"anchor": "A", "positive": "B", "negatives": ["C", None]},
            ConversationError,
            r"negatives\[1\]: is empty: found nothing",
        ),
        ({"anchor": 3, "positive": "B"}, ConversationError, "anchor: is no input: found int 3"),
        ({"anchor": "A", "positive": [[1, 2]]}, ConversationError, r"positive\[0\]"),
        (
            {"anchor": "A", "positive": {"image": "/no/such.png"}},
            MediaError,
            r"positive, image\[0\]: ",
        ),
        ({"anchor": "A", "positive": {"role": "user"}}, ConversationError, "positive"),
        (
            {"anchor": "A", "positive": "B", "positive_images": [[IMAGE], []]},
            ConversationError,
            "positive_images: has 2 items, expected 1, a list for each positive",
        ),
        ({"anchor": {"text": 3}, "positive": "B"}, ConversationError, r"anchor\.text: expected"),
        (
            {
                "anchor": "A",
                "positive": [{"role": "user", "content": [{"type": "text", "text": 3}]}],
            },
            ConversationError,
            r"positive\[0\]\.content\[0\]",
        ),
        ([], ConversationError, "has 0 inputs"),
        ("nothing", ConversationError, ""),
    ],
)
def test_a_bad_input_is_named(row, error, message):
    with pytest.raises(error, match=message or None) as caught:
        EmbeddingCollator(COLLATOR)([ROWS[0], row])
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "pairs"}, "layout"),
        ({"instructions": {"query": "Find it."}}, "instructions is wrong: .*'anchor'"),
        ({"instructions": "Find it."}, "instructions is wrong"),
        ({"generation_prompt": 1}, "generation_prompt"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        EmbeddingCollator(COLLATOR, **options)


def test_an_empty_batch_is_refused():
    with pytest.raises(EmptyBatchError):
        EmbeddingCollator(COLLATOR).stack([])


def test_an_image_may_be_an_array_or_stored():
    stream = io.BytesIO()
    IMAGE.save(stream, "PNG")
    stored = {"bytes": stream.getvalue(), "path": None}
    group = EmbeddingCollator(COLLATOR).encode(
        {"anchor": np.asarray(IMAGE), "positive": stored, "negatives": [{"image": stored}]}
    )
    assert len(set(texts_of(group))) == 1
    pixels = [sample.media["pixel_values"] for sample in (group.anchor, group.positive)]
    assert torch.equal(*pixels)


def alike(row, other, **options):
    collate = EmbeddingCollator(COLLATOR, **options)
    assert texts_of(collate.encode({"anchor": "A", **row})) == texts_of(
        collate.encode({"anchor": "A", **other})
    )


def test_an_input_may_have_its_own_instruction():
    """As in Qwen3-VL-Embedding; a text beside it must not be lost."""
    collate = EmbeddingCollator(COLLATOR, instructions={"positive": "Other."})
    row = {"anchor": {"text": "A", "instruction": "Find."}, "positive": "B"}
    assert texts_of(collate.encode(row)) == [prompt("A", "Find."), prompt("B", "Other.")]
    row = {"anchor": "A", "positive": {"image": IMAGE, "instruction": "Show."}}
    assert texts_of(collate.encode(row))[1].startswith("<|im_start|>system\nShow.<|im_end|>")
    row = {"anchor": "A", "positive": {"text": "B", "instruction": ["Show."]}}
    with pytest.raises(ConversationError, match=r"positive\.instruction: expected a string"):
        collate.encode(row)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ('[{"role": "user", "content": "B"}]', [{"role": "user", "content": "B"}]),
        ([{"type": "text", "text": "B"}, "b"], "Bb"),
        ({"type": "text", "text": "B"}, "B"),
        ({"text": "B", "id": 7}, "B"),
    ],
)
def test_the_spellings_of_one_input_are_read(given, read):
    alike({"positive": given}, {"positive": read})
    alike({"positive": "C", "negatives": ["D", given]}, {"positive": "C", "negatives": ["D", read]})


def test_an_array_of_images_is_one_input_each():
    array = np.zeros((2, 64, 64, 3), np.uint8)
    alike({"positive": "B", "negatives": array}, {"positive": "B", "negatives": list(array)})


def test_messages_in_arrays_are_no_images():
    """As datasets with the format of NumPy holds them."""
    message = {"role": "user", "content": "B"}
    nested = np.empty((2, 1), dtype=object)
    nested[0, 0], nested[1, 0] = message, {**message, "content": "C"}
    row = {"positive_messages": nested[:1], "negative_messages": nested}
    alike(row, {"positive": "B", "negatives": ["B", "C"]})


def test_media_of_the_positive_and_the_negatives_as_in_ms_swift():
    row: dict[str, Any] = {
        "messages": [{"role": "user", "content": "A"}],
        "positive_messages": [[{"role": "user", "content": "<image>B"}]],
        "positive_images": [[IMAGE]],
        "negative_messages": [
            [{"role": "user", "content": "C"}],
            [{"role": "user", "content": "D<image>"}],
        ],
        "negative_images": [[], [OTHER]],
    }
    expected = {
        "anchor": "A",
        "positive": {"text": "<image>B", "images": [IMAGE]},
        "negatives": ["C", {"text": "D<image>", "image": OTHER}],
    }
    collate = EmbeddingCollator(COLLATOR)
    assert texts_of(collate.encode(row)) == texts_of(collate.encode(expected))
    row["negative_images"][1] = ["/no/such.png"]
    with pytest.raises(MediaError, match=r"^negative_messages\[1\], images\[0\]: no file"):
        collate.encode(row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"anchor": {"text": "A", "images": [IMAGE]}, "images": [OTHER], "positive": "B"},
            "anchor: holds 'images', and so does the row beside it; keep one",
        ),
        (
            {"anchor": "A", "positive": {"text": ["B", "C"]}},
            r"positive\.text: expected a string, found list",
        ),
        (
            {"anchor": "A", "positive": {"text": "B", "question": "C?"}},
            r"positive\.text: stands beside a question",
        ),
        (
            {"anchor": "A", "positive": "B", "negatives": [{"type": "text", "text": "C"}, "D"]},
            "negatives: is a list of parts, of one input or of several",
        ),
    ],
)
def test_no_text_and_no_media_is_lost(row, message):
    with pytest.raises(ConversationError, match=message):
        EmbeddingCollator(COLLATOR).encode(row)


def test_media_is_read_from_the_folder_of_the_format(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    row = {
        "anchor": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
        "positive": {"image": "a.png"},
    }
    format_ = MessagesFormat(media_root=tmp_path)
    group = EmbeddingCollator(collator_for(PROCESSOR, format=format_)).encode(row)
    assert texts_of(group)[0] == texts_of(group)[1]


def test_plain_texts_are_read_if_the_format_says_so():
    collator = collator_for(PROCESSOR, format="text")
    collate = EmbeddingCollator(collator)
    group = collate.encode({"anchor": "A", "positive": {"text": "<image>", "image": IMAGE}})
    assert texts_of(group)[0] == "A<|im_end|>"
    assert "user" not in texts_of(group)[1] and group.positive.media_counts == {"image": 1}
    with pytest.raises(ConversationError, match="anchor: holds messages or an instruction, but"):
        collate.encode({"anchor": [{"role": "user", "content": "A"}], "positive": "B"})
    with pytest.raises(ConfigError, match="instructions are system messages"):
        EmbeddingCollator(collator, instructions={"anchor": "Find."})


def test_an_instruction_that_no_tokenizer_encodes_is_refused():
    with pytest.raises(ConfigError, match=r"instructions\['anchor'\]: holds a lone surrogate"):
        EmbeddingCollator(COLLATOR, instructions={"anchor": "\ud800"})
