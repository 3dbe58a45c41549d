"""A processor that takes fewer media items refuses a row; a bug for two items is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processors import build, processor_of
from vlmcollate import RobustCollator, collator_for
from vlmcollate.errors import CollateError, MediaError

TEXT = [{"role": "user", "content": "Quokka?"}, {"role": "assistant", "content": "Numbat."}]


def _turn(*kinds):
    items = {"image": Image.new("RGB", (56, 56)), "video": [Image.new("RGB", (56, 56))] * 4}
    parts = [{"type": kind, kind: items[kind]} for kind in kinds]
    return [
        {"role": "user", "content": [*parts, {"type": "text", "text": "Bilby?"}]},
        {"role": "assistant", "content": "Potoroo."},
    ]


TWO = [*_turn("video"), *_turn("video")]
PLACES = r"messages\[0\]\.content\[0\], messages\[2\]\.content\[0\]: "


@pytest.fixture
def molmo():
    processor_of("molmo2")  # skips what an old transformers lacks
    return build("molmo2")


def test_two_videos_where_one_is_taken_are_a_bad_row(molmo):
    collator = collator_for(molmo)
    problem = PLACES + "Molmo2Processor refuses 2 media items in one sample: At most one video is "
    with pytest.raises(MediaError, match=problem):
        collator.encode(TWO)
    robust = RobustCollator(collator=collator)
    assert len(robust([TEXT, TWO])["input_ids"]) == 1


def test_a_turn_is_served_though_a_later_one_holds_too_many(molmo):
    first, second = collator_for(molmo, split_turns=True).turn_encoders(TWO)
    assert first().media_counts == {"video": 1}
    with pytest.raises(MediaError, match=PLACES):
        second()


def _too_many(
    self: Any, images: Any = None, text: Any = None, videos: Any = None, **_: Any
) -> None:
    if len(videos or images or ()) > 1:
        raise ValueError("too many")


def _never(self: Any, **_: Any) -> None:
    raise ValueError("never")


def _by_content(self: Any, videos: Any = None, **_: Any) -> None:
    if len(videos or ()) > 1:
        raise ValueError(f"{np.shape(videos[0])} is too many")


def _cannot_stack(self: Any, videos: Any = None, **_: Any) -> None:
    if len(videos or ()) > 1:
        np.stack([np.zeros(1), np.zeros(2)])


def _cannot_convert(self: Any, videos: Any = None, **_: Any) -> None:
    if len(videos or ()) > 1:
        int("two")


def _is_a_typo(self: Any, videos: Any = None, **_: Any) -> None:
    if len(videos or ()) > 1:
        raise KeyError("vidoes")


@pytest.mark.parametrize(
    "bug",
    [_never, _by_content, _cannot_stack, _cannot_convert, _is_a_typo],
    ids=lambda f: f.__name__,
)
def test_a_bug_that_two_items_meet_is_no_bad_row(molmo, bug, monkeypatch):
    monkeypatch.setattr(type(molmo), "validate_inputs", bug)
    robust = RobustCollator(collator=collator_for(molmo))
    with pytest.raises((ValueError, KeyError)) as caught:
        robust([TEXT, TWO])
    assert not isinstance(caught.value, CollateError)


@pytest.mark.parametrize("number", [2, 3])
def test_any_number_that_the_processor_refuses_is_named(molmo, number, monkeypatch):
    collator = collator_for(molmo)
    monkeypatch.setattr(type(molmo), "validate_inputs", _too_many)
    assert collator.encode(_turn("video")).media_counts == {"video": 1}
    with pytest.raises(MediaError, match=f"refuses {number} media items in one sample: too many"):
        collator.encode(_turn(*["video"] * number))
