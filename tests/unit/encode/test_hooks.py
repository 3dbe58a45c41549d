"""Whose fault an error is: the sample's, a strategy's, or a bug's that nothing may hide."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from tests.processors import build, processor_of
from vlmcollate import (
    ConfigError,
    FirstApplicable,
    LocalMedia,
    PadToLength,
    PadToLongest,
    RobustCollator,
    collator_for,
)
from vlmcollate.errors import MediaError, StrategyError
from vlmcollate.extend import LabelStrategy, MediaStrategy, PaddingStrategy
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.prompt.encoder import Turn


def _chat(image: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "image", "image": image}]},
        {"role": "assistant", "content": "yes"},
    ]


IMAGE = Image.new("RGB", (64, 48), "teal")
GOOD, NARROW = _chat(IMAGE), _chat(Image.new("RGB", (2000, 4), "teal"))  # Qwen takes up to 200 : 1
TEXT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


def _archive() -> bytes:
    memory, packed = io.BytesIO(), io.BytesIO()
    IMAGE.save(memory, "PNG")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.png", memory.getvalue())
        archive.writestr("broken.png", b"not an image")
    return packed.getvalue()


ARCHIVE = _archive()


class _Zip(MediaStrategy):
    """Loads images by their name in a zip archive; adds no option, and needs no decorator."""

    media_errors: ClassVar[tuple[type[Exception], ...]] = (KeyError,)

    def load_image(self, source: object, *, where: str) -> Image.Image:
        del where
        with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as archive:
            return Image.open(io.BytesIO(archive.read(str(source)))).convert("RGB")


@attrs.frozen(kw_only=True)
class _Failing(LocalMedia):
    """Raises an error in one of its hooks."""

    error: Any = None
    hook: str = "load_image"

    def _fail(self, hook: str) -> None:
        if hook == self.hook:
            raise self.error

    def load_image(self, source: object, *, where: str) -> Image.Image:
        self._fail("load_image")
        return super().load_image(source, where=where)

    def image_size(self, source: object, *, where: str) -> tuple[int, int]:
        self._fail("image_size")
        return super().image_size(source, where=where)


class _FailingLabels(LabelStrategy):
    def find_turns(self, prompt: Any, context: Any) -> Any:
        raise ZeroDivisionError("oh")


@attrs.frozen(kw_only=True)
class _NoBuckets(PadToLongest):
    def padded_length(self, lengths: Any) -> int:
        return next(length for length in (2, 4) if length >= max(lengths))


@attrs.frozen(kw_only=True, eq=False)
class _Buggy(Qwen2_5_VLCollator):
    error: Any = None

    def process_media(self, rendering: Any, media: Any) -> Any:
        if self.error == "misses":
            return self.processor.image_processr(media)
        if self.error == "wrong call":  # the image processor itself raises a ValueError
            return self.processor.image_processor([object()])
        raise self.error


def _skip(collator: Any) -> RobustCollator:
    return RobustCollator(collator=collator, on_error="skip")


@pytest.fixture(scope="module")
def processor():
    return processor_of("qwen2_5_vl")


def test_what_a_processor_refuses_is_skipped(processor):
    collator = collator_for(processor)
    with pytest.raises(MediaError, match=r"sample 1, messages\[0\]\.content\[0\]: .*refuses"):
        collator([GOOD, NARROW])
    assert _skip(collator)([GOOD, NARROW])["n_failed_samples"] == 1


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("a"),
        TypeError("t"),
        KeyError("k"),
        ValueError("v"),
        RuntimeError("r"),
        MemoryError(),
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory"),
        "misses",
        "wrong call",
    ],
    ids=repr,
)
def test_a_bug_in_processing_is_never_skipped(processor, error):
    expected = {"misses": AttributeError, "wrong call": Exception}.get(str(error), type(error))
    with pytest.raises(expected) as caught:
        _skip(_Buggy(processor=processor, error=error))([TEXT, GOOD])
    assert not isinstance(caught.value, MediaError)
    assert "sample 1" in "".join(getattr(caught.value, "__notes__", ["sample 1"]))


def test_a_processor_out_of_memory_is_not_bad_media(processor, monkeypatch):
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(type(processor.image_processor), "_preprocess", full)
    collator = collator_for(build("qwen2_5_vl"))
    with pytest.raises(torch.OutOfMemoryError):
        _skip(collator)([GOOD])
    monkeypatch.undo()
    assert collator.encode(GOOD).pixel_tables  # what was tried without memory is not kept


def test_a_processor_set_up_wrongly_is_not_bad_media(processor, monkeypatch):
    monkeypatch.setattr(processor.image_processor, "patch_size", 0)
    with pytest.raises((ValueError, ArithmeticError)) as caught:
        _skip(collator_for(processor))([GOOD])
    assert not isinstance(caught.value, MediaError)


def test_the_exceptions_that_a_strategy_declares_are_bad_media(processor):
    collator = collator_for(processor, media=_Zip())
    assert collator([_chat("a.png")])["n_images_per_sample"].tolist() == [1]
    with pytest.raises(MediaError, match=r"sample 1, .*content\[0\]: _Zip .*KeyError: .*b\.png"):
        collator([_chat("a.png"), _chat("b.png")])
    assert _skip(collator)([_chat("a.png"), _chat("b.png")])["n_failed_samples"] == 1


def test_what_it_does_not_declare_is_an_error_of_the_strategy(processor):
    """An image that Pillow cannot read is an OSError, which this strategy does not declare."""
    for collate in (
        collator_for(processor, media=_Zip()),
        _skip(collator_for(processor, media=_Zip())),
    ):
        with pytest.raises(
            StrategyError, match=r"sample 0, messages\[0\]\.content\[0\]: _Zip"
        ) as caught:
            collate([_chat("broken.png")])
        assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("hook", ["load_image", "image_size"])
@pytest.mark.parametrize(
    "error", [KeyError("k"), RuntimeError("r"), RecursionError(), StopIteration()]
)
def test_every_hook_of_a_media_strategy(processor, hook, error):
    collator = collator_for(processor, media=_Failing(error=error, hook=hook))
    run: Any = collator.token_count if hook == "image_size" else collator.encode
    with pytest.raises(StrategyError, match="_Failing failed: " + type(error).__name__) as caught:
        run(GOOD)
    assert caught.value.__cause__ is error


def test_an_error_that_a_strategy_raises_itself_gets_its_place(processor):
    collator = collator_for(processor, media=_Failing(error=MediaError("too blue")))
    with pytest.raises(MediaError, match=r"^sample 1, messages\[0\]\.content\[0\]: too blue"):
        collator([TEXT, GOOD])


@pytest.mark.parametrize("labels", [_FailingLabels(), FirstApplicable([_FailingLabels()])])
def test_a_label_strategy_with_a_bug(processor, labels):
    with pytest.raises(StrategyError, match="sample 1: _FailingLabels failed") as caught:
        _skip(collator_for(processor, labels=labels))(["no conversation", TEXT])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_padding_strategy_with_a_bug(processor):
    with pytest.raises(StrategyError, match="_NoBuckets failed: StopIteration") as caught:
        _skip(collator_for(processor, padding=_NoBuckets()))([TEXT])
    assert caught.value.index is None


def test_an_error_of_a_strategy_survives_pickling_and_a_worker(processor):
    error = pickle.loads(pickle.dumps(StrategyError("no good", where="messages[1]", index=4)))
    assert type(error) is StrategyError
    assert str(error) == "sample 4, messages[1]: no good"
    collator = collator_for(processor, media=_Failing(error=RuntimeError("worn out")))
    rows: Any = [TEXT, GOOD]
    loader: Any = DataLoader(rows, batch_size=2, collate_fn=collator, num_workers=1)
    with pytest.raises(StrategyError, match=r"sample 1, .*worn out"):
        next(iter(loader))


@pytest.mark.parametrize("declared", [KeyError, (Exception,), (KeyboardInterrupt,), ("KeyError",)])
def test_media_errors_are_exceptions_and_not_all_of_them(declared):
    with pytest.raises(ConfigError, match="media_errors is wrong"):
        type("Mine", (LocalMedia,), {"media_errors": declared})


def test_a_bug_beside_the_template_is_not_a_bad_row(processor, monkeypatch):
    def broken(*_: Any, **__: Any) -> str:
        return str(object().missing)  # type: ignore[attr-defined]

    monkeypatch.setattr(type(processor), "apply_chat_template", broken)
    with pytest.raises(AttributeError):
        _skip(collator_for(processor))([TEXT])


def test_plain_media_of_each_kind_is_what_is_tried_again(processor):
    """The processor refuses this video, and takes a plain one in its place."""
    narrow = np.zeros((4, 4, 2000, 3), np.uint8)
    chat = [
        {"role": "user", "content": [{"type": "video", "video": narrow, "fps": 2.0}]},
        {"role": "assistant", "content": "yes"},
    ]
    with pytest.raises(MediaError, match="refuses"):
        collator_for(processor)([chat])


@pytest.mark.parametrize(
    "image", [None, 42, b"", "a.png", [IMAGE], IMAGE.convert("L"), IMAGE.convert("RGBA")]
)
def test_an_image_that_is_no_rgb_image_is_refused(processor, image, monkeypatch):
    monkeypatch.setattr(LocalMedia, "load_image", lambda *_, **__: image)
    with pytest.raises(StrategyError, match=r"messages\[0\]\.content\[0\]: LocalMedia returned"):
        _skip(collator_for(processor))([GOOD])


def test_a_strategy_that_adds_no_option_is_a_value(processor):
    media = _Zip()
    assert media == pickle.loads(pickle.dumps(media))
    batch = collator_for(processor, media=media)([_chat("a.png")])
    assert batch["pixel_values"].dtype == torch.float32


@attrs.frozen(kw_only=True)
class _Plain(MediaStrategy):
    """Adds an option, and is decorated for it."""

    colour: str = "teal"

    def load_image(self, source: object, *, where: str) -> Image.Image:
        del source, where
        return Image.new("RGB", (64, 48), self.colour)


def test_a_strategy_that_adds_an_option_keeps_it(processor):
    media = _Plain(colour="red")
    assert media == pickle.loads(pickle.dumps(media)) != attrs.evolve(media, colour="teal")
    assert len(collator_for(processor, media=media)([_chat("any")])["pixel_values"])


@attrs.frozen
class _Turns(LabelStrategy):
    found: Any

    def find_turns(self, prompt: Any, context: Any) -> Any:
        return self.found


@pytest.mark.parametrize(
    "found",
    [
        None,
        [None],
        [(1, 0)],
        [Turn(0, 0, 3)],
        [Turn(9, 0, 3)],
        [Turn(1, 0, 9999)],
        [Turn(1, -1, 3)],
        [Turn(1, 4, 6), Turn(1, 2, 4)],
        [Turn(1, 0.0, 3.0)],  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_turns_that_no_answer_has_are_refused(processor, found):
    with pytest.raises(StrategyError, match=r"_Turns returned a wrong result: found .*turns? in"):
        _skip(collator_for(processor, labels=_Turns(found)))([TEXT])


@pytest.mark.parametrize(("before", "behind"), [(-3, 0), (0, 1), (3, 3), (-3, -3)])
def test_a_turn_that_reaches_beyond_its_own_is_refused(processor, before, behind):
    sample = collator_for(processor).encode(TEXT)
    own = (sample.labels >= 0).nonzero()[:, 0].tolist()
    shifted = Turn(1, own[0] + before, own[-1] + 1 + behind)
    with pytest.raises(
        StrategyError, match=r"_Turns returned .* expected (a turn inside \(1, |turns in)"
    ):
        _skip(collator_for(processor, labels=_Turns([shifted])))([TEXT])
    part = collator_for(processor, labels=_Turns([Turn(1, own[0] + 1, own[-1] + 1)])).encode(TEXT)
    assert (part.labels >= 0).sum() == len(own) - 1  # a strategy may train less


@attrs.frozen(kw_only=True)
class _Buckets(PaddingStrategy):
    """A padding of two lengths."""

    announces: int = 0
    pads_to: int = 0

    def padded_length(self, lengths: Sequence[int]) -> int:
        return self.announces or next(size for size in (8, 16) if size >= max(lengths))

    def __call__(self, samples: Any, fill: Any) -> Any:
        if self.pads_to < 0:
            return None
        padded = PadToLength(
            length=self.pads_to or self.padded_length([len(s["input_ids"]) for s in samples])
        )
        return padded(samples, fill)


@pytest.mark.parametrize(
    ("padding", "problem"),
    [
        (_Buckets(), "_Buckets failed"),
        (_Buckets(announces=64, pads_to=80), r"found Tensor torch.int64 .*80.* expected .*64"),
        (_Buckets(announces=5, pads_to=80), r"expected every key of shape \(1, 5\)"),
        (_Buckets(announces=64, pads_to=-1), "found NoneType, expected a dict"),
    ],
)
def test_what_padding_returns_is_checked(processor, padding, problem):
    with pytest.raises(StrategyError, match=problem):
        collator_for(processor, padding=padding)([TEXT])


def test_an_error_of_another_batch_is_not_the_samples(processor):
    """A collator that runs in a hook counts its samples from 0, and they are not this batch's."""
    inner = collator_for(processor, max_length=5)

    class Nested(LocalMedia):
        def load_image(self, source: object, *, where: str) -> Image.Image:
            inner([TEXT, TEXT])
            return super().load_image(source, where=where)

    collator = collator_for(processor, media=Nested(), max_length=500, on_overlong="drop")
    with pytest.raises(StrategyError, match=r"^sample 2, messages\[0\]\.content\[0\]: Nested fail"):
        _skip(collator)([TEXT, TEXT, GOOD])
