"""Explanations against literals and against what `encode` gives."""

from __future__ import annotations

import copy
import json

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from tests.processors import processor_of, with_template
from vlmcollate import IGNORE_INDEX, ThinkingPrefix, collator_for
from vlmcollate.errors import ConversationError
from vlmcollate.explain.alignment import aligned
from vlmcollate.testing import tiny_processor


def chat(question="What is it?", answer="A red circle.", *, images=0):
    shown = [{"type": "image", "image": Image.new("RGB", (112, 84))} for _ in range(images)]
    return [
        {"role": "user", "content": [*shown, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer},
    ]


@pytest.fixture(scope="module")
def collator():
    return collator_for(tiny_processor())


def test_the_sample_is_that_of_encode(collator):
    example = chat(images=2)
    ours, theirs = collator.explain(example).sample, collator.encode(example)
    for key in theirs.tokens:
        assert torch.equal(ours.tokens[key], theirs.tokens[key])
    assert ours.label_strategy == theirs.label_strategy


def test_the_texts_are_the_prompt_and_the_offsets_are_places_in_it(collator):
    found = collator.explain(chat("日本 🙂é and more", "ü👩‍🚀 yes", images=1))
    placeholder = "<|image_pad|>"
    assert "".join(found.texts) == found.prompt.replace(placeholder, "")
    for token in found.tokens:
        if token.kind == "media":
            assert found.prompt[token.offset :].startswith(placeholder)
        elif token.text:
            assert found.prompt[token.offset :].startswith(token.text)


def test_runs_cover_the_tokens_and_fold_media(collator):
    found = collator.explain(chat(images=1))
    assert [(run.kind, run.text) for run in found.runs] == [
        ("template", "<|im_start|>user\n<|vision_start|>"),
        ("media", "<image 1: 12 tokens>"),
        ("template", "<|vision_end|>"),
        ("message", "What is it?"),
        ("template", "<|im_end|>\n<|im_start|>assistant\n"),
        ("trained", "A red circle.<|im_end|>"),
        ("template", "\n"),
    ]
    assert [run.start for run in found.runs[1:]] == [run.end for run in found.runs[:-1]]
    assert found.runs[-1].end == len(found.sample)


def test_blocks_begin_with_the_header_of_their_message(collator):
    found = collator.explain(chat(images=1))
    assert [(b.role, "".join(found.texts[b.start : b.end])) for b in found.blocks] == [
        ("user", "<|im_start|>user\n<|vision_start|><|vision_end|>What is it?<|im_end|>\n"),
        ("assistant", "<|im_start|>assistant\nA red circle.<|im_end|>\n"),
    ]


def test_what_the_template_says_first_is_a_block_of_its_own():
    found = collator_for(processor_of("qwen2_5_vl")).explain(chat())
    assert [b.role for b in found.blocks] == ["template", "user", "assistant"]
    first = found.blocks[0]
    text = "".join(found.texts[first.start : first.end])
    assert text == "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def test_labels_and_classes_agree(collator):
    for token in collator.explain(chat(images=1)).tokens:
        assert token.label == (token.id if token.kind == "trained" else IGNORE_INDEX)


def test_the_summary_counts(collator):
    found = collator.explain(chat(images=1))
    assert found.summary["by_class"]["media"] == 12
    assert sum(found.summary["by_class"].values()) == found.summary["tokens"] == len(found.sample)
    assert sum(r["tokens"] for r in found.summary["by_role"].values()) == len(found.sample)
    assert found.summary["by_role"]["user"]["trained"] == 0
    assert found.summary["label_strategy"] == "RenderedSpanLabels"
    stages = {"read", "load", "render", "process", "tokenize", "label", "postprocess"}
    assert set(found.seconds) == stages
    assert min(found.seconds.values()) >= 0


def test_media_has_its_size_and_tokens(collator):
    (item,) = collator.explain(chat(images=1)).media
    assert (item.kind, item.message, item.size, item.tokens) == ("image", 0, "112 x 84", 12)


def test_it_is_shown_as_text_json_and_html(collator):
    found = collator.explain(chat("</pre><img src=x onerror=alert(1)>"))
    assert "[[A red circle.<|im_end|>]]" in repr(found)
    assert json.loads(json.dumps(found.to_dict()))["summary"]["tokens"] == len(found.sample)
    assert "<img" not in found._repr_html_()
    assert "&lt;img src=x" in found._repr_html_()


def test_an_error_is_that_of_encode(collator):
    with pytest.raises(ConversationError) as ours:
        collator.explain({"messages": []})
    with pytest.raises(ConversationError) as theirs:
        collator.encode({"messages": []})
    assert str(ours.value) == str(theirs.value)


def test_spelled_control_text_is_a_warning(collator):
    found = collator.explain(chat("a<|im_end|>b"))
    assert found.warnings == ("messages[0] spells <|im_end|>, which was encoded as plain text",)
    assert collator.explain(chat()).warnings == ()


def test_turns_that_train_nothing_are_a_warning(collator):
    silent = [{**chat()[1], "weight": 0}]
    found = collator.explain([*chat()[:1], *silent, *chat()])
    assert found.warnings == ("the assistant's messages[1] is not trained (its weight is 0)",)
    last = attrs.evolve(collator, train_on="last_turn").explain(chat() * 2)
    assert last.warnings == ("the assistant's messages[1] is not trained",)


def test_a_turn_with_a_sample_of_its_own_is_not_called_untrained(collator):
    split = attrs.evolve(collator, split_turns=True)
    _, last = split.explain_all(chat() * 2)
    assert last.warnings == ("the assistant's messages[1] trains in a sample of its own",)
    silent = [chat()[0], {**chat()[1], "weight": 0}]
    (last,) = split.explain_all([*silent, *chat()])
    assert last.warnings == ("the assistant's messages[1] is not trained (its weight is 0)",)
    chosen = attrs.evolve(split, train_on="last_turn")
    (last,) = chosen.explain_all(chat() * 2)
    assert last.warnings == ("the assistant's messages[1] is not trained",)


def test_truncation_is_a_warning_and_keeps_the_places(collator):
    example = [*chat(answer="Yes."), *chat(answer="No. " * 50, images=2)]
    whole = collator.explain(example)
    limit = len(whole.sample) - 20
    cutting = attrs.evolve(collator, max_length=limit, on_overlong="truncate")
    found = cutting.explain(example)
    assert found.warnings == (
        f"truncated from {len(whole.sample)} tokens to {limit} to fit max_length",
    )
    assert found.texts == whole.texts[:limit]
    assert np.array_equal(found.offsets, whole.offsets[:limit])


def test_media_that_was_cut_off_is_not_listed(collator):
    example = [*chat(answer="Yes.", images=1), *chat(images=1)]
    found = attrs.evolve(collator, max_length=45, on_overlong="truncate").explain(example)
    assert [item.tokens for item in found.media] == [12]


def test_dropped_turns_are_a_warning(collator):
    example = [*chat("First? " * 20, images=1), *chat("Second?", images=1)]
    found = attrs.evolve(collator, max_length=60, on_overlong="drop_turns").explain(example)
    assert "2 of the 4 messages were dropped to fit max_length" in found.warnings
    assert "Second?" in "".join(found.texts)
    assert [item.message for item in found.media] == [0]


def test_left_out_text_is_a_warning(collator):
    example = chat()
    example[1]["reasoning_content"] = "hm"
    found = attrs.evolve(collator, on_template_omission="allow").explain(example)
    assert found.warnings == ("the chat template omits messages[1].reasoning_content",)


def test_much_media_is_a_warning():
    example = chat("?", "!")
    picture = Image.new("RGB", (1000, 1000))
    example[0]["content"].insert(0, {"type": "image", "image": picture})
    (warning,) = collator_for(processor_of("qwen2_5_vl")).explain(example).warnings
    assert warning.startswith("media makes up 98.")


def test_more_tokens_than_the_model_takes_are_a_warning():
    processor = copy.deepcopy(tiny_processor())
    processor.tokenizer.model_max_length = 10
    found = collator_for(processor).explain(chat())
    assert found.warnings == (
        f"{len(found.sample)} tokens, more than the tokenizer's model_max_length=10",
    )


def test_a_doubled_bos_is_a_warning():
    template = "{{ bos_token }}" + processor_of("gemma3").chat_template
    processor = with_template("gemma3", template)
    (warning,) = collator_for(processor).explain(chat()).warnings
    assert warning.startswith("the sequence begins with two bos tokens")
    assert collator_for(processor_of("gemma3")).explain(chat()).warnings == ()


def test_placeholder_media_is_padding(collator):
    found = attrs.evolve(collator, dummy_media="sample").explain(chat())
    assert [run.kind for run in found.runs][-1] == "padding"
    assert found.media[-1].size == "dummy media"
    assert found.texts[0] == "<|im_start|>"


def test_inserted_tokens_have_no_place():
    assert aligned(np.array([5, 7, 7, 9, 2]), np.array([5, 7, 7, 2])).tolist() == [0, 1, 2, -1, 3]
    assert aligned(np.array([5, 7]), np.array([5, 7, 8])).tolist() == [0, 1]
    assert aligned(np.array([1, 5]), np.array([5])).tolist() == [-1, 0]


def test_a_thinking_prefix_stands_in_no_prompt():
    collator = collator_for(
        processor_of("gemma4"), thinking_prefix=ThinkingPrefix(text="<|channel>thought\n<channel|>")
    )
    found = collator.explain(chat())
    inserted = [token for token in found.tokens if token.offset is None and token.id != 2]
    assert "".join(t.text for t in inserted) == "<|channel>thought\n<channel|>"
    assert found.tokens[-2].text in found.prompt


def test_its_text_does_not_steer_a_terminal():
    messages = [
        {"role": "user", "content": "red \x1b[31m text"},
        {"role": "assistant", "content": "No\x07"},
    ]
    shown = repr(collator_for(tiny_processor()).explain(messages))
    assert "\\x1b[31m" in shown
    assert not {"\x1b", "\x07"} & set(shown)
