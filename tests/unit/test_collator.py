"""What the options do, on a real processor around a small tokenizer."""

import gc
import pickle
import weakref
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from tests.decoding import trained_texts
from tests.processors import processor_of
from vlmcollate import (
    BaseCollator,
    ConfigError,
    EncodedSample,
    LocalMedia,
    PadToLength,
    PadToLongest,
    collator_for,
    register,
)
from vlmcollate.encode.options import CollatorOptionsDict
from vlmcollate.errors import (
    ConversationError,
    EmptyBatchError,
    LabelError,
    MediaError,
    MediaMismatchError,
    SampleTooLongError,
    TemplateOmissionWarning,
)
from vlmcollate.extend import Join
from vlmcollate.models import COLLATORS
from vlmcollate.models.default import DefaultCollator
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.testing import tiny_processor

IMAGE = Image.new("RGB", (64, 48), "teal")


@pytest.fixture(scope="module")
def processor():
    return tiny_processor("qwen2_5_vl")


def turn(question, answer, images=0, **extra):
    parts = [{"type": "image", "image": IMAGE} for _ in range(images)]
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer, **extra},
    ]


def trained(sample, processor):
    return trained_texts(processor.tokenizer, sample.input_ids, sample.labels)


# ------------------------------------------------------------------ options at construction


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_length": 0}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"on_overlong": "cut"}, "on_overlong"),
        ({"on_overlong": "drop"}, "no effect without max_length"),
        ({"train_on": "first_turn"}, "train_on"),
        ({"special_tokens_in_text": "keep"}, "special_tokens_in_text"),
        ({"on_template_omission": "log"}, "on_template_omission"),
        ({"labels": PadToLongest()}, "LabelStrategy"),
        ({"padding": "longest"}, "PaddingStrategy"),
        ({"media": LocalMedia}, "MediaStrategy"),
        ({"stop_tokens": ["<|nope|>"]}, "not tokens"),
        ({"shift_labels": "yes"}, "shift_labels"),
        ({"max_len": 3}, "max_len"),
    ],
)
def test_bad_options_are_refused_at_construction(processor, options, problem):
    with pytest.raises(ConfigError, match=problem):
        collator_for(processor, **options)


def test_a_processor_without_template_is_refused(processor):
    bare = tiny_processor("qwen2_5_vl")
    bare.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        collator_for(bare)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-VL-2B-Instruct", Path("models/qwen")])
def test_the_name_of_a_processor_is_refused_with_the_call_that_loads_it(name):
    with pytest.raises(ConfigError, match=rf"AutoProcessor\.from_pretrained\('{name}'\)"):
        collator_for(name)


class Plain(Qwen2_5_VLCollator):
    """Changes a stage."""

    limit: ClassVar[int] = 3

    def postprocess(self, sample):
        return sample


def test_a_subclass_without_options_needs_no_decorator(processor):
    copied = pickle.loads(pickle.dumps(attrs.evolve(Plain(processor=processor), max_length=900)))
    assert type(copied).__name__ == "Plain"
    assert copied.max_length == 900
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        copied.max_length = 3


class _Annotated(Qwen2_5_VLCollator):
    speed: int = 2


class _Unvalued(Qwen2_5_VLCollator):
    speed: int


class _Fielded(Qwen2_5_VLCollator):
    speed = attrs.field(default=2)


class _Below(_Fielded):
    """Inherits from one."""


@pytest.mark.parametrize("kind", [_Annotated, _Unvalued, _Fielded, _Below])
def test_options_without_the_decorator_are_refused(processor, kind):
    for options in ({}, {"speed": 3}):
        with pytest.raises(
            ConfigError, match=r"adds the option 'speed' without the attrs decorator"
        ):
            kind(processor=processor, **options)
    with pytest.raises(ConfigError, match="without the attrs decorator"):
        register("ForgetfulProcessor", kind)


def test_a_wrong_option_names_the_right_one(processor):
    with pytest.raises(ConfigError, match="no option 'max_len'; did you mean 'max_length'"):
        collator_for(processor, max_len=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="no option 'zzz'; it takes allowed_special_tokens,"):
        collator_for(processor, zzz=3)  # type: ignore[call-arg]


def test_the_typed_options_are_those_of_the_built_in_collators():
    kinds: list[type[Any]] = [DefaultCollator, *COLLATORS.values()]
    own = {
        f.name
        for kind in kinds
        if kind.__module__.startswith("vlmcollate.")
        for f in attrs.fields(kind)
    }
    assert set(CollatorOptionsDict.__annotations__) == own - {"processor"}


def test_register_serves_subclasses_of_the_processor(processor, monkeypatch):
    @attrs.frozen(kw_only=True, eq=False)
    class MineCollator(BaseCollator):
        """One of a third party."""

    monkeypatch.setattr("vlmcollate.models.COLLATORS", dict(COLLATORS))
    register("Qwen2_5_VLProcessor", MineCollator)
    assert type(collator_for(processor)) is MineCollator


def test_the_default_collator_learns_what_the_family_declares(processor):
    theirs = collator_for(processor)
    learned = DefaultCollator(processor=processor)
    assert learned.family.token_types == theirs.family.token_types
    assert learned.family.joins == theirs.family.joins  # of images and videos
    chats = [turn("one", "1", images=1), turn("two", "2", images=2)]
    for key, value in theirs(chats).items():
        assert torch.equal(learned(chats)[key], value)


# ------------------------------------------------------------------ what trains


def test_turns_last(processor):
    chat = turn("a", "one") + turn("b", "two")
    assert trained(collator_for(processor).encode(chat), processor) == [
        "one<|im_end|>",
        "two<|im_end|>",
    ]
    last = collator_for(processor, train_on="last_turn").encode(chat)
    assert trained(last, processor) == ["two<|im_end|>"]


def test_train_false_and_prompts_do_not_train(processor):
    chat = turn("a", "one", train=False) + turn("b", "two")
    assert trained(collator_for(processor).encode(chat), processor) == ["two<|im_end|>"]
    example = {"prompt": [*turn("a", "one"), {"role": "user", "content": "b"}], "completion": "two"}
    assert trained(collator_for(processor).encode(example), processor) == ["two<|im_end|>"]


def test_weights_reach_the_batch_and_follow_the_labels(processor):
    chats = [turn("a", "one", weight=0.5), turn("b", "two three four")]
    batch = collator_for(processor)(chats)
    weights, labels = batch["loss_weights"], batch["labels"]
    assert weights.dtype == torch.float32
    assert set(weights[0][labels[0] != -100].tolist()) == {0.5}
    assert set(weights[1][labels[1] != -100].tolist()) == {1.0}
    assert (weights[labels == -100] == 0).all()
    assert "loss_weights" not in collator_for(processor)([turn("a", "b", weight=1.0)])


def test_nothing_to_train_is_an_error_unless_allowed(processor):
    chat = turn("a", "one", train=False)
    with pytest.raises(LabelError, match="nothing is trained"):
        collator_for(processor).encode(chat)
    sample = collator_for(processor, require_labels=False).encode(chat)
    assert (sample.labels == -100).all()


def test_pad_may_equal_the_end_token():
    processor = tiny_processor("qwen2_5_vl")
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    batch = collator_for(processor)([turn("a", "one"), turn("b", "a much longer answer")])
    stop = processor.tokenizer.eos_token_id
    assert (batch["labels"] == stop).sum(1).tolist() == [1, 1]
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_every_key_declares_its_axis(processor):
    sample = collator_for(processor).encode(turn("a", "one", images=2))
    assert isinstance(sample, EncodedSample)
    assert sample.axes == {
        "input_ids": "tokens",
        "attention_mask": "tokens",
        "mm_token_type_ids": "tokens",
        "labels": "tokens",
        "pixel_values": "media",
        "image_grid_thw": "media",
    }
    assert sample.media_counts == {"image": 2}
    assert sorted(set(sample.media_ids.tolist())) == [-1, 0, 1]
    assert sample.label_strategy == "RenderedSpanLabels"


# ------------------------------------------------------------------ too long


def test_raise_names_the_length_that_would_do(processor):
    chat = turn("a", "one two three", images=1)
    whole = collator_for(processor).encode(chat)
    with pytest.raises(SampleTooLongError, match=f"raise it to {len(whole)}, or"):
        collator_for(processor, max_length=len(whole) - 1).encode(chat)
    assert len(collator_for(processor, max_length=len(whole)).encode(chat)) == len(whole)


def test_drop_keeps_the_others(processor):
    short, long = turn("a", "b"), turn("a", "word " * 50)
    limit = len(collator_for(processor).encode(short))
    collator = collator_for(processor, max_length=limit, on_overlong="drop")
    assert len(collator([long, short, long])["input_ids"]) == 1
    with pytest.raises(EmptyBatchError, match="none of the 2 examples is left"):
        collator([long, long])
    with pytest.raises(EmptyBatchError, match="no example"):
        collator([])


def test_truncate_never_cuts_media_at_any_length(processor):
    chat = turn("one", "first answer", images=1) + turn("two", "second", images=2)
    whole = collator_for(processor).encode(chat)
    pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for limit in range(1, len(whole) + 1):
        collator = collator_for(
            processor, max_length=limit, on_overlong="truncate", require_labels=False
        )
        sample = collator.encode(chat)
        assert len(sample) <= limit
        assert torch.equal(sample.input_ids, whole.input_ids[: len(sample)])
        assert torch.equal(sample.labels, whole.labels[: len(sample)])
        grid = sample.media.get("image_grid_thw", torch.zeros(0, 3, dtype=torch.long))
        assert (sample.input_ids == pad).sum() == sum(row.prod() // 4 for row in grid)
        assert len(sample.media.get("pixel_values", [])) == sum(row.prod() for row in grid)
        assert sample.media_counts.get("image", 0) == len(grid)


def test_truncating_the_last_label_away_is_an_error(processor):
    chat = turn("a long question " * 5, "yes")
    collator = collator_for(processor, max_length=10, on_overlong="truncate")
    with pytest.raises(SampleTooLongError, match="nothing to train"):
        collator.encode(chat)


def test_drop_turns_drops_the_oldest_exchange(processor):
    system = [{"role": "system", "content": "Be brief."}]
    turns = [
        turn("one", "first", images=1),
        turn("two", "second"),
        turn("three", "third", images=1),
    ]
    chat = [*system, *turns[0], *turns[1], *turns[2]]
    expected = collator_for(processor).encode([*system, *turns[1], *turns[2]])
    collator = collator_for(processor, max_length=len(expected), on_overlong="drop_turns")

    sample = collator.encode(chat)

    assert torch.equal(sample.input_ids, expected.input_ids)
    assert torch.equal(sample.labels, expected.labels)
    assert torch.equal(sample.pixels("pixel_values"), expected.pixels("pixel_values"))
    with pytest.raises(SampleTooLongError):
        collator_for(processor, max_length=5, on_overlong="drop_turns").encode(chat)


# ------------------------------------------------------------------ padding, media, the template


def test_padding_options(processor):
    chats = [turn("a", "one"), turn("b", "a longer answer")]
    plain = collator_for(processor)(chats)
    lengths = plain["attention_mask"].sum(1).tolist()
    left = collator_for(processor, padding=PadToLongest(side="left", multiple_of=16))(chats)
    assert left["input_ids"].shape[1] % 16 == 0
    assert left["attention_mask"][:, -1].tolist() == [1, 1]
    assert left["attention_mask"].sum(1).tolist() == lengths
    fixed = collator_for(processor, padding=PadToLength(length=64))(chats)
    assert fixed["labels"].shape == (2, 64)
    with pytest.raises(SampleTooLongError, match="sample 1"):
        collator_for(processor, padding=PadToLength(length=min(lengths)))(chats)


def test_a_tokenizer_that_pads_left_does_not_matter():
    processor = tiny_processor("qwen2_5_vl")
    processor.tokenizer.padding_side = "left"
    batch = collator_for(processor)([turn("a", "one"), turn("b", "a longer answer")])
    assert batch["attention_mask"][:, 0].tolist() == [1, 1]


def test_pixels_may_be_cast(processor):
    batch = collator_for(processor, pixels="bfloat16")([turn("a", "b", images=1)])
    assert batch["pixel_values"].dtype == torch.bfloat16
    assert batch["image_grid_thw"].dtype == torch.int64


def test_bad_media_names_sample_and_place(processor):
    bad = turn("a", "b", images=1)
    bad[0]["content"][0]["image"] = "/no/such/file.png"
    with pytest.raises(MediaError, match=r"sample 1, messages\[0\]\.content\[0\]"):
        collator_for(processor)([turn("a", "b"), bad])
    video = [
        {"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]},
        *turn("a", "b")[1:],
    ]
    with pytest.raises(MediaError, match="takes no audio"):
        collator_for(processor).encode(video)


def test_what_the_processor_refuses_is_an_error_of_the_sample(processor):
    long = turn("a", "b", images=1)
    long[0]["content"][0]["image"] = Image.new("RGB", (4, 2000))
    with pytest.raises(MediaError, match=r"sample 1, messages\[0\]\.content\[0\].*aspect ratio"):
        collator_for(processor)([turn("a", "b"), long])


def test_a_template_that_drops_media_is_refused():
    processor = tiny_processor("qwen2_5_vl")
    processor.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
        "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(MediaMismatchError, match=r"holds 1 image\(s\).*no media"):
        collator_for(processor).encode(turn("a", "b", images=1))


def test_what_the_template_drops_is_reported():
    processor = tiny_processor("qwen2_5_vl")
    processor.chat_template = (
        "{% for m in messages %}{% if m.role != 'system' or loop.first %}<|im_start|>{{ m.role }}\n"
        "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = [*turn("a", "b"), {"role": "system", "content": "now rhyme"}, *turn("c", "d")]
    collator = collator_for(processor)
    with pytest.warns(TemplateOmissionWarning, match=r"omits messages\[2\]\.content\[0\]"):
        sample = collator.encode(chat)
    assert trained(sample, processor) == ["b<|im_end|>", "d<|im_end|>"]
    with pytest.raises(ConversationError, match="omits"):
        collator_for(processor, on_template_omission="raise").encode(chat)
    collator_for(processor, on_template_omission="allow").encode(chat)


@pytest.mark.parametrize("option", ["tokenize", "add_generation_prompt", "messages", "tools"])
def test_template_variables_cannot_change_how_the_template_is_called(processor, option):
    example = {"messages": turn("a", "b"), "chat_template_kwargs": {option: True}}
    with pytest.raises(ConversationError):
        collator_for(processor).encode(example)


def test_a_template_without_end_token_is_refused():
    processor = tiny_processor("qwen2_5_vl")
    processor.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{{ p.text }}{% endfor %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    with pytest.raises(LabelError, match="this turn has no stop token"):
        collator_for(processor).encode(turn("a", "b"))


NEVER_ASKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for p in m.content %}{{ p.text }}{% endfor %}<|im_end|>\n{% endfor %}"
)


def test_a_template_without_generation_prompt_is_refused_if_its_headers_are_unlike():
    processor = tiny_processor("qwen2_5_vl")
    processor.chat_template = NEVER_ASKS.replace("m.role", "'q' if loop.index is odd else 'a'")
    with pytest.raises(LabelError, match="no generation prompt"):
        collator_for(processor).encode(turn("a", "b"))


@attrs.frozen
class KeepOnly(Join):
    """A third party's join, which returns what it is given."""

    def join(self, values, key):
        return values[0]


def test_a_batch_is_never_overwritten_by_the_next(processor):
    @attrs.frozen(kw_only=True, eq=False)
    class AliasingCollator(Qwen2_5_VLCollator):
        """One whose join does not copy."""

        family = attrs.evolve(
            Qwen2_5_VLCollator.family,
            joins={"pixel_values": KeepOnly(), "image_grid_thw": KeepOnly()},
        )

    collator = AliasingCollator(processor=processor)
    red = [turn("a", "b", images=1)]
    blue = [turn("a", "b", images=1)]
    blue[0][0]["content"][0]["image"] = Image.new("RGB", (64, 48), "navy")
    for _ in range(3):
        first = collator(red)
        kept = {key: value.clone() for key, value in first.items()}
        assert not torch.equal(collator(blue)["pixel_values"], kept["pixel_values"])
        assert all(torch.equal(first[key], kept[key]) for key in first)


def test_the_base_class_is_abstract():
    with pytest.raises(ConfigError, match="BaseCollator is abstract; use collator_for"):
        BaseCollator(processor=tiny_processor())


def test_its_repr_is_short_enough_to_read():
    shown = repr(collator_for(tiny_processor(), max_length=7))
    assert shown.startswith("Qwen2_5_VLCollator(processor=Qwen2_5_VLProcessor, max_length=7, ")
    assert len(shown) < 1500


def test_a_video_is_cut_off_whole_where_its_words_merge_with_those_before_it():
    """SmolVLM writes about a video in words, whose first may be one token with the last before."""
    processor = processor_of("smolvlm")
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello there"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See:"}, {"type": "video", "video": frames}],
        },
        {"role": "assistant", "content": "A cat"},
    ]
    whole = collator_for(processor).encode(messages)
    edges = (whole.media_ids[1:] != whole.media_ids[:-1]).nonzero()[:, 0].tolist()
    # each limit around the beginning of the video; inside it all limits do the same
    limits = {*range(len(whole) // 4, edges[0] + 9), *range(edges[0], len(whole), 20)}
    for limit in sorted({*limits, *range(edges[-1] - 8, len(whole))}):
        collator = collator_for(
            processor, max_length=limit, on_overlong="truncate", require_labels=False
        )
        cut = collator.encode(messages)
        assert len(cut) <= limit
        assert torch.equal(cut.input_ids, whole.input_ids[: len(cut)])
        assert torch.equal(cut.labels, whole.labels[: len(cut)])
        held = bool((cut.media_ids >= 0).any())
        assert held == bool(cut.media) == bool(cut.media_counts.get("video"))


def test_a_collator_goes_with_its_last_use():
    """No cycle keeps it, since its processor takes a hundred megabytes."""
    collator = collator_for(tiny_processor(), dummy_media="batch")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    collator([messages])
    assert collator.token_count(messages) == 15
    gone = weakref.ref(collator)
    gc.disable()
    try:
        del collator
        assert gone() is None
    finally:
        gc.enable()
