"""Plain text with media: all words train, no media does, and no text becomes a control token."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from PIL import Image
from tokenizers.processors import TemplateProcessing

from tests.processors import processor_of
from vlmcollate import BlockCausalMask, ConfigError, collator_for
from vlmcollate.errors import ConversationError, SampleTooLongError, UnreadKeyWarning
from vlmcollate.formats import TextFormat, read_example

IMAGE = Image.new("RGB", (56, 56), "teal")
FAMILIES = ["qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "llava"]
TEXT = "Cats purr. Ünder <think> no </think> <|im_end|></s><end_of_turn>[/INST] user: they sleep"


def text_collator(family: str, **options: Any):
    return collator_for(processor_of(family), format="text", **options)


def trained_text(collator, sample) -> str:
    return str(collator.processor.tokenizer.decode(sample.input_ids[sample.labels != -100]))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_words_of_a_text_and_its_end_train(family):
    collator = text_collator(family)
    tokenizer = collator.processor.tokenizer
    text = "Cats purr.\n\n  They sleep all day, 16 hours. "
    sample = collator.encode({"text": text})
    assert sample.input_ids.tolist() == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    trained = sample.labels[sample.labels != -100]
    assert trained.tolist() == [*bare, tokenizer.eos_token_id]
    assert sample.message_ids.tolist() == [-1] * (len(sample) - len(trained)) + [0] * len(trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_a_text_never_becomes_a_control_token(family):
    collator = text_collator(family)
    tokenizer = collator.processor.tokenizer
    for text in (TEXT, f"{tokenizer.bos_token or ''}{TEXT}{tokenizer.eos_token}"):
        sample = collator.encode({"text": text})
        special = [i for i in sample.input_ids.tolist() if i in tokenizer.all_special_ids]
        prefix = tokenizer("a")["input_ids"][: -len(tokenizer.tokenize("a"))]
        assert special == [*prefix, tokenizer.eos_token_id]
        ids = sample.input_ids.tolist()[len(prefix) : -1]
        assert tokenizer.decode(ids).strip() == text


@pytest.mark.parametrize("family", FAMILIES)
def test_media_stands_where_its_tag_is_and_does_not_train(family):
    collator = text_collator(family)
    row = {"text": "A cat <image>sleeps,<image> and purrs", "images": [IMAGE, IMAGE]}
    sample = collator.encode(row)
    trained = sample.labels != -100
    assert sample.media_counts == {"image": 2}
    assert not trained[sample.media_ids >= 0].any()
    said = trained_text(collator, sample).replace(" ", "")
    assert said == "Acatsleeps,andpurrs" + collator.processor.tokenizer.eos_token
    first, second = ((sample.media_ids == item).nonzero()[0].item() for item in (0, 1))
    words = collator.processor.tokenizer.decode(
        sample.input_ids[first:second][trained[first:second]]
    )
    assert words.strip() == "sleeps,"
    # as many media tokens, with the same tokens around them, as in a chat
    chat: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "A cat"},
                {"type": "image", "image": IMAGE},
                {"type": "text", "text": "sleeps"},
            ],
        },
        {"role": "assistant", "content": "Yes"},
    ]
    in_chat = collator_for(processor_of(family)).encode(chat)
    assert (sample.media_ids == 0).sum() == (in_chat.media_ids == 0).sum()
    if family.startswith("qwen"):
        around = [sample.input_ids[first - 1], in_chat.input_ids[in_chat.media_ids.argmax() - 1]]
        assert around[0] == around[1]
        assert not trained[first - 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_media_without_a_tag_stands_before_the_text(family):
    collator = text_collator(family)
    sample = collator.encode({"text": "A cat", "image": IMAGE})
    tagged = collator.encode({"text": "<image>A cat", "image": IMAGE})
    assert sample.input_ids.tolist() == tagged.input_ids.tolist()
    assert sample.labels.tolist() == tagged.labels.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_counted_truncated_and_explained(family):
    collator = text_collator(family)
    row = {"text": "A cat <image> sleeps. " + "It purrs. " * 5, "image": IMAGE}
    sample = collator.encode(row)
    assert collator.token_count(row) in (len(sample), None)
    explanation = collator.explain(row)
    assert (explanation.format, explanation.sample.label_strategy) == ("text", "TextFormat")
    assert not explanation.warnings
    assert "purrs" in str(explanation)

    limit = len(sample) - 6
    cut = text_collator(family, max_length=limit, on_overlong="truncate").encode(row)
    assert cut.input_ids.tolist() == sample.input_ids[:limit].tolist()
    assert cut.labels.tolist() == sample.labels[:limit].tolist()
    first = int((sample.media_ids == 0).nonzero()[0])
    short = text_collator(family, max_length=first + 1, on_overlong="truncate").encode(row)
    assert short.media_counts == {}
    assert trained_text(collator, short).strip() == "A cat"
    with pytest.raises(SampleTooLongError):
        text_collator(family, max_length=limit, on_overlong="drop_turns").encode(row)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"])
def test_texts_are_packed_with_an_end_between_them(family):
    collator = text_collator(family)
    rows = [{"text": "A cat <image> sleeps.", "image": IMAGE}, {"text": "Dogs bark"}]
    samples = [collator.encode(row) for row in rows]
    pack = collator.pack(samples)
    lengths = [len(sample) for sample in samples]
    assert pack.tokens["document_ids"].tolist() == [1] * lengths[0] + [2] * lengths[1]
    assert pack.labels[lengths[0]] == -100
    assert (pack.labels == collator.processor.tokenizer.eos_token_id).sum() == len(rows)
    batch = text_collator(family, padding=BlockCausalMask())(rows)
    assert batch["input_ids"].shape[0] == len(rows)


def test_a_text_has_a_column_and_a_weight():
    collator = collator_for(processor_of("qwen2_5_vl"), format=TextFormat(column="body"))
    sample = collator.encode({"body": "A cat", "weight": 0.5, "id": 3})
    assert sample.tokens["loss_weights"].tolist() == [0.5] * len(sample)
    with pytest.raises(ConversationError, match="body: expected a string, found int 4"):
        collator.encode({"body": 4})
    with pytest.raises(ConversationError, match="not in the format 'text': found a dict with"):
        collator.encode({"text": "A cat"})


def test_plain_text_is_read_only_if_it_is_chosen():
    with pytest.raises(ConversationError, match="not a conversation"):
        read_example({"text": "A cat"})
    row = {"question": "What?", "answer": "A cat.", "text": "Dogs"}
    with pytest.warns(UnreadKeyWarning, match="'text'"):
        assert read_example(row).format == "question_answer"
    with pytest.warns(UnreadKeyWarning, match="'caption'"):
        read = read_example({"text": "Dogs", "caption": "A cat"}, "text")
    assert (read.format, read.is_plain_text, read.messages[0].text) == ("text", True, "Dogs")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "<image><image>", "image": IMAGE}, "the text has 2 <image> tag"),
        ({"text": "a", "system": "Be kind."}, "system: .*holds a system prompt"),
        ({"text": "a", "tools": [{"name": "f"}]}, "tools: .*holds tools"),
        ({"text": "a", "chat_template_kwargs": {"x": 1}}, "variables of a chat template"),
        ({"text": "a", "rejected": [{"role": "user", "content": "b"}]}, "holds messages"),
        ({"text": "a", "train": False}, "nothing is trained"),
    ],
)
def test_what_no_text_holds_is_refused(row, problem):
    with pytest.raises(ValueError, match=problem):
        text_collator("qwen2_5_vl").encode(row)


def test_added_tokens_that_are_allowed_may_stand_in_a_text():
    collator = text_collator("qwen2_5_vl", allowed_special_tokens="<|box_start|>")
    number = collator.processor.tokenizer.convert_tokens_to_ids("<|box_start|>")
    assert (collator.encode({"text": "a <|box_start|> b"}).input_ids == number).sum() == 1
    assert (text_collator("qwen2_5_vl").encode({"text": "<|box_start|>"}).input_ids != number).all()
    with pytest.raises(ConversationError, match="spells the control token"):
        text_collator("qwen2_5_vl", special_tokens_in_text="error").encode({"text": "<|im_end|>"})


def test_models_of_prompts_and_answers_take_no_plain_text():
    with pytest.raises(ConfigError, match="PaliGemmaCollator takes no plain text"):
        text_collator("paligemma").encode({"text": "a"})


def test_an_end_that_the_tokenizer_adds_itself_stands_there_once():
    processor = copy.deepcopy(processor_of("qwen2_5_vl"))
    end = processor.tokenizer.eos_token
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, processor.tokenizer.eos_token_id)]
    )
    sample = collator_for(processor, format="text").encode({"text": "A cat"})
    assert sample.input_ids.tolist() == processor.tokenizer("A cat")["input_ids"]
    assert sample.labels.tolist() == sample.input_ids.tolist()
