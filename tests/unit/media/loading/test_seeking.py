"""Seeking to key frames gives the frames that decoding from the start gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clips import CLIPS, FRAMES, clip, frames_of, opened, remux
from tests.media_bytes import damaged
from vlmcollate import FrameSampling, LocalMedia
from vlmcollate.conversation import MediaOptions
from vlmcollate.errors import MediaError
from vlmcollate.media import Video
from vlmcollate.media.loading import frame_seeking, video_decoding
from vlmcollate.media.loading.sampled_frames import SampledFrames

FAR = (0, 40, 80)


def load(data: bytes, indices: Any) -> Video:
    sampling = FrameSampling().for_item(MediaOptions(indices=tuple(sorted(indices))))
    return LocalMedia().load_video(data, sampling=sampling, where="videos[0]")


@pytest.fixture
def seeks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each attempt to decode by seeking succeeded."""
    found: list[bool] = []
    decode = frame_seeking.decode_by_seeking

    def watched(*arguments: Any) -> None:
        found.append(False)
        decode(*arguments)
        found[-1] = True

    monkeypatch.setattr(video_decoding, "decode_by_seeking", watched)
    return found


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = av.logging.get_level()
    av.logging.set_level(av.logging.PANIC)
    yield
    av.logging.set_level(level)


@pytest.mark.parametrize("name", CLIPS)
def test_the_frames_are_those_of_the_file(name: str, seeks: list[bool]) -> None:
    video = load(clip(name), FAR)
    assert np.array_equal(video.frames, frames_of(name)[list(FAR)])
    assert len(set(map(bytes, video.frames))) == 3
    assert (seeks == [True]) == CLIPS[name][1]


@given(st.sampled_from(list(CLIPS)), st.sets(st.integers(0, FRAMES - 1), min_size=1, max_size=6))
def test_drawn_frames_are_those_of_the_file(name: str, indices: set[int]) -> None:
    video = load(clip(name), indices)
    assert video.indices.tolist() == sorted(indices)
    assert np.array_equal(video.frames, frames_of(name)[sorted(indices)])


@pytest.mark.parametrize("number", [1, 3, 8, 30, 90])
def test_even_sampling(number: int) -> None:
    name = "h264 mp4"
    sampling = FrameSampling(fps=None, num_frames=number, min_frames=1)
    video = LocalMedia().load_video(clip(name), sampling=sampling, where="")
    assert np.array_equal(video.frames, frames_of(name)[video.indices])


@pytest.mark.parametrize(
    ("indices", "tries"), [((0,), 0), ((5, 11, 15), 0), (range(90), 0), ((40,), 1)]
)
def test_a_seek_has_to_skip_frames(indices: Any, tries: int, seeks: list[bool]) -> None:
    load(clip("h264 mp4"), indices)
    assert seeks == [True] * tries


def test_frames_before_a_seek_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    take = SampledFrames.take

    def watched(self: SampledFrames, at: int | None, frame: Any) -> None:
        decoded.append(at)
        take(self, at, frame)

    monkeypatch.setattr(SampledFrames, "take", watched)
    load(clip("h264 mp4"), FAR)
    assert len(decoded) == 1 + 5 + 9  # frame 0, then 36 to 40, then 72 to 80


def test_a_trimmed_clip(seeks: list[bool]) -> None:
    trimmed = remux(clip("h264 mp4"), container="mp4", shift=-18, avoid_negative_ts="disabled")
    with opened(trimmed) as container:
        discarded = sum(packet.is_discard for packet in container.demux(video=0))
    assert discarded == 6
    video = load(trimmed, (0, 30, 65))
    assert np.array_equal(video.frames, frames_of("h264 mp4")[[18, 48, 83]])
    assert seeks == [True]


def test_a_clip_that_is_to_be_turned(seeks: list[bool]) -> None:
    data = bytearray(clip("h264 mp4"))
    one, minus_one, zero = b"\0\1\0\0", b"\xff\xff\0\0", bytes(4)
    at = data.index(one + zero * 3 + one, data.index(b"tkhd"))
    data[at : at + 20] = zero + one + zero + minus_one + zero
    video = load(bytes(data), FAR)
    expected = np.rot90(frames_of("h264 mp4")[list(FAR)], -1, (1, 2))
    assert np.array_equal(video.frames, expected) and video.frames.flags.c_contiguous
    assert seeks == [True]


def test_an_index_that_leads_to_the_start_is_used_once(
    monkeypatch: pytest.MonkeyPatch, seeks: list[bool]
) -> None:
    targets = []

    class Container:
        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def seek(self, target: int, **options: Any) -> None:
            targets.append(target)
            self.container.seek(0, **options)

    run = frame_seeking._Run
    monkeypatch.setattr(frame_seeking, "_Run", lambda c, *more: run(Container(c), *more))
    video = load(clip("h264 matroska"), (0, 40, 60, 80))
    assert np.array_equal(video.frames, frames_of("h264 matroska")[[0, 40, 60, 80]])
    assert seeks == [True] and len(targets) == 1


def packets_of(data: bytes) -> list[tuple[int, int]]:
    with opened(data) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size]


def test_damage_between_the_sampled_frames_is_skipped() -> None:
    data = bytearray(clip("h264 mp4"))
    for at, size in packets_of(bytes(data))[14:24]:
        data[at + 5 : at + size] = b"\xff" * (size - 5)
    video = load(bytes(data), FAR)
    assert np.array_equal(video.frames, frames_of("h264 mp4")[list(FAR)])


def test_damage_before_a_sampled_frame_has_the_result_of_decoding_from_the_start(
    monkeypatch: pytest.MonkeyPatch, seeks: list[bool]
) -> None:
    data = bytearray(clip("h264 mp4"))
    at, size = packets_of(bytes(data))[37]
    data[at + 8 : at + size] = b"\xff" * (size - 8)
    found = outcome(bytes(data))
    assert seeks == [False]
    monkeypatch.setattr(video_decoding, "skips_frames", lambda *_: False)
    assert outcome(bytes(data)) == found


def outcome(data: bytes) -> Any:
    try:
        return load(data, FAR).frames.tobytes()
    except MediaError as error:
        return type(error)


@pytest.mark.parametrize("name", ["h264 mp4", "h264 matroska", "hevc open mp4", "vp9", "vp8"])
def test_damaged_clips_give_a_video_or_a_media_error(name: str) -> None:
    random = np.random.default_rng(1)
    found = [outcome(damaged(clip(name), random)) for _ in range(40)]
    assert frames_of(name)[list(FAR)].tobytes() in found and MediaError in found
