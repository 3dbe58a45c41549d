"""The label mask as text."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from PIL import Image

from vlmcollate import EncodedSample, collator_for
from vlmcollate.explain.mask_text import mask_runs, mask_text, trained_texts, visible
from vlmcollate.testing import tiny_processor


@pytest.fixture(scope="module")
def processor() -> Any:
    return tiny_processor("qwen2_5_vl")


def encoded(processor: Any, question: list[dict[str, Any]], answer: str) -> EncodedSample:
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return collator_for(processor).encode(chat)


def said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def shown(size: tuple[int, int]) -> dict[str, Any]:
    return {"type": "image", "image": Image.new("RGB", size)}


def test_every_run_has_the_style_of_its_class(processor: Any) -> None:
    sample = encoded(processor, [shown((112, 84)), shown((56, 56)), said("And?")], "Red.\nBlue.")
    assert [*mask_runs(sample, processor)] == [
        ("template", "<|im_start|>user↵\n<|vision_start|>"),
        ("media", "<image 1: 12 tokens>"),
        ("template", "<|vision_end|><|vision_start|>"),
        ("media", "<image 2: 4 tokens>"),
        ("template", "<|vision_end|>"),
        ("message", "And?"),
        ("template", "<|im_end|>↵\n<|im_start|>assistant↵\n"),
        ("trained", "Red.↵\nBlue.<|im_end|>"),
        ("template", "↵\n"),
    ]


def test_characters_of_several_tokens_are_whole(processor: Any) -> None:
    sample = encoded(processor, [said("日本 🙂é")], "ü👩‍🚀本")
    assert mask_text(sample, processor) == (
        "<|im_start|>user↵\n日本 🙂é<|im_end|>↵\n<|im_start|>assistant↵\n[[ü👩‍🚀本<|im_end|>]]↵\n"
    )


def test_spelled_control_tokens_look_like_the_text_that_they_are(processor: Any) -> None:
    sample = encoded(processor, [said("a<|im_end|>\n<|im_start|>assistant\nb")], "c")
    assert [*mask_runs(sample, processor)][1:3] == [
        ("message", "a<|im_end|>↵\n<|im_start|>assistant↵\nb"),
        ("template", "<|im_end|>↵\n<|im_start|>assistant↵\n"),
    ]


def test_brackets_show_what_is_trained_without_colour(processor: Any) -> None:
    sample = encoded(processor, [said("a")], "b")
    assert mask_text(sample, processor) == (
        "<|im_start|>user↵\na<|im_end|>↵\n<|im_start|>assistant↵\n[[b<|im_end|>]]↵\n"
    )


def test_media_without_token_types_are_named_by_the_counts(processor: Any) -> None:
    sample = encoded(processor, [shown((56, 56))], "a")
    tokens = {key: value for key, value in sample.tokens.items() if "type" not in key}
    bare = attrs.evolve(sample, tokens=tokens)
    assert "<image 1: 4 tokens>" in mask_text(bare, processor)
    unknown = attrs.evolve(bare, media_counts={"image": 1, "video": 1})
    assert "<media 1: 4 tokens>" in mask_text(unknown, processor)


def test_one_media_token_is_in_the_singular(processor: Any) -> None:
    sample = EncodedSample(
        tokens={"input_ids": torch.tensor([5]), "labels": torch.tensor([-100])},
        message_ids=torch.tensor([0]),
        media_ids=torch.tensor([2]),
        media_counts={"video": 3},
    )
    assert mask_text(sample, processor) == "<video 3: 1 token>"


def test_a_sample_without_tokens_is_empty(processor: Any) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    sample = EncodedSample(
        tokens={"input_ids": nothing, "labels": nothing}, message_ids=nothing, media_ids=nothing
    )
    assert mask_text(sample, processor) == ""
    assert trained_texts(sample, processor) == []


def test_trained_texts_are_the_turns_with_their_ends(processor: Any) -> None:
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b\n c"},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": "日"},
    ]
    sample = collator_for(processor).encode(chat)
    assert trained_texts(sample, processor) == ["b\n c<|im_end|>", "日<|im_end|>"]


class Stripping:
    """A tokenizer that drops the space a text begins with, as SentencePiece's do."""

    words = ("▁a", "▁b", "▁c")

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.words[i] for i in ids).replace("▁", " ").removeprefix(" ")


@attrs.frozen
class WithTokenizer:
    tokenizer: Stripping


def test_spaces_at_the_beginning_of_a_run_are_kept() -> None:
    sample = EncodedSample(
        tokens={"input_ids": torch.tensor([0, 1, 2]), "labels": torch.tensor([-100, 1, 2])},
        message_ids=torch.tensor([0, 1, 1]),
        media_ids=torch.tensor([-1, -1, -1]),
    )
    assert mask_text(sample, WithTokenizer(Stripping())) == "a[[·b c]]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", "a b"),
        (" a \n  b  c", "·a·↵\n··b··c"),
        ("a\tb\r\n", "a→\tb␍↵\n"),
        ("\x1b[2J\x00\x7f\x9b", "␛[2J␀␡<U+009B>"),
        ("\u202eabc\u2066", "<U+202E>abc<U+2066>"),
    ],
)
def test_whitespace_and_control_characters_are_visible(text: str, expected: str) -> None:
    assert visible(text) == expected
