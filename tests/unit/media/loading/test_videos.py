"""Videos are sampled by the times of their frames, or refused clearly."""

from __future__ import annotations

import io
import time

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.media_bytes import STEP, damaged, jpeg_frames, video_bytes
from vlmcollate import ConfigError, FrameSampling, LocalMedia, VideoLimits
from vlmcollate.conversation import MediaOptions
from vlmcollate.errors import MediaError

EVEN = np.arange(30) / 10
UNEVEN = np.cumsum(np.random.default_rng(0).choice([0.03, 0.1, 0.5], 40))


def load(source, sampling=None, **options):
    media = LocalMedia(**options)
    return media.load_video(source, sampling=sampling or FrameSampling(), where="videos[0]")


def shown(video):
    """The index in the file of each sampled frame, by its grey."""
    return np.rint(video.frames.mean((1, 2, 3)) / STEP).astype(int).tolist()


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["constant", "variable"])
@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize(
    "sampling", [FrameSampling(fps=2.0), FrameSampling(fps=None, num_frames=7)]
)
def test_the_frames_are_nearest_to_even_moments(times, container, sampling):
    video = load(video_bytes(times, container=container), sampling)
    times = np.round(times - times[0], 3)
    assert shown(video) == video.indices.tolist()
    np.testing.assert_allclose(video.times, times[video.indices], atol=2e-3)
    moments = np.linspace(times[0], times[-1], sampling.num_frames or len(video.frames))
    for moment in moments:  # half the gap around a moment is as near as a frame can be
        after = times[times >= moment - 1e-9][0]
        before = times[times <= moment + 1e-9][-1]
        assert np.abs(video.times - moment).min() <= (after - before) / 2 + 2e-3


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["constant", "variable"])
def test_metadata_gives_the_true_times(times):
    video = load(video_bytes(times))
    facts = video.metadata()
    found = np.array(facts.frames_indices) / facts.fps
    np.testing.assert_allclose(found, (times - times[0])[video.indices], atol=2e-3)
    assert facts.total_num_frames / facts.fps == pytest.approx(video.duration, abs=2e-3)
    assert facts.sampled_fps == pytest.approx(len(video.frames) / video.duration, rel=1e-3)


def test_a_constant_rate_keeps_its_real_indices():
    facts = load(video_bytes(EVEN)).metadata()
    assert facts.fps == pytest.approx(10) and facts.total_num_frames == 30


@pytest.mark.parametrize(("frames", "fps", "expected"), [(30, 1.0, 4), (30, 5.0, 15), (2, 5.0, 2)])
def test_the_number_of_frames(frames, fps, expected):
    video = load(video_bytes(np.arange(frames) / 10), FrameSampling(fps=fps))
    assert len(video.frames) == expected


def test_a_single_frame_and_odd_sizes():
    video = load(video_bytes([0.0], size=(34, 18)))
    assert video.frames.shape == (1, 18, 34, 3)
    assert video.duration > 0


def test_every_source_gives_the_same(tmp_path):
    data = video_bytes(EVEN)
    path = tmp_path / "video.mkv"
    path.write_bytes(data)
    expected = load(data).frames
    for source in (path, str(path), path.as_uri(), {"bytes": data, "path": None}, bytearray(data)):
        assert np.array_equal(load(source).frames, expected)


def test_frames_that_are_sampled_already():
    frames = np.zeros((6, 8, 10, 3), np.uint8)
    frames[3] = 200
    images = [Image.fromarray(frame) for frame in frames]
    first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for source in (frames, torch.from_numpy(frames), first, images):
        video = load(source)
        assert np.array_equal(video.frames, frames)
        assert video.times.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]  # at the rate that the model wants
    with_rate = load(images, FrameSampling().for_item(MediaOptions(fps=4.0)))
    assert with_rate.times.tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_a_folder_of_frames_is_the_list_of_its_files(tmp_path):
    names = ["frame10.png", "frame9.png", "frame1.png", ".hidden"]
    for name in names[:3]:
        Image.new("RGB", (8, 8), (int(name[5:-4]), 0, 0)).save(tmp_path / name)
    (tmp_path / ".hidden").touch()
    for source in (tmp_path, str(tmp_path), tmp_path.as_uri(), {"path": str(tmp_path)}):
        assert load(source).frames[:, 0, 0, 0].tolist() == [1, 9, 10]
    assert load(tmp_path.name, root=tmp_path.parent).frames.shape == (3, 8, 8, 3)
    with pytest.raises(MediaError, match="outside"):
        load(tmp_path.parent, root=tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(MediaError, match="notes"):
        load(tmp_path)


def picked(times, options, **sampling):
    return FrameSampling(**sampling).for_item(MediaOptions(**options)).pick(times).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 1.0, "end": 2.0, "num_frames": 3}, [10, 15, 20]),
        ({"end": 0.0}, [0]),
        ({"start": 2.85}, [29]),
        ({"times": (0.0, 0.52, 2.9)}, [0, 5, 29]),
        ({"indices": (3, 4, 29)}, [3, 4, 29]),
        ({"indices": (0, 30, 60), "raw_fps": 30.0}, [0, 10, 20]),
        ({"num_frames": 99}, list(range(30))),
    ],
)
def test_the_options_of_a_video_choose_its_frames(options, expected):
    assert picked(EVEN, options) == expected


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"start": 3.0}, "no frame from 3 s to the end"),
        ({"start": 1.01, "end": 1.05}, "no frame from 1.01 s to 1.05 s"),
        ({"times": (0.0, 3.5)}, "3.5 s is asked for"),
        ({"times": (0.0, 0.01)}, "same frame"),
        ({"indices": (0, 30)}, "names frame 30, but the video has 30"),
    ],
)
def test_options_that_name_no_frame_are_refused(options, problem):
    with pytest.raises(MediaError, match=problem):
        picked(EVEN, options)


def test_the_options_of_a_video_come_before_those_of_the_strategy_and_of_the_model():
    strategy = LocalMedia(frames=FrameSampling(fps=1.0, min_frames=1, max_frames=2))
    data = video_bytes(EVEN)
    for options, number in (({}, 2), ({"num_frames": 5}, 5), ({"max_frames": 3, "fps": 9.0}, 3)):
        sampling = FrameSampling(fps=8.0).for_item(MediaOptions(**options))
        video = strategy.load_video(data, sampling=sampling, where="videos[0]")
        assert len(video.frames) == number


def test_a_clip_has_the_length_and_the_rate_of_its_part():
    sampling = FrameSampling().for_item(MediaOptions(start=1.0, end=1.9, num_frames=5))
    video = load(video_bytes(EVEN), sampling)
    np.testing.assert_allclose(video.times, [1.0, 1.2, 1.5, 1.7, 1.9], atol=0.06)
    assert video.total_frames == 10 and video.duration == pytest.approx(1.0)
    assert video.sampled_fps == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({"sample_fps": 1.0}, [0, 1, 2, 3, 4, 5]),
        ({"sample_fps": 1.0, "raw_fps": 30.0}, [0, 1, 2, 3, 4, 5]),
        ({"fps": 2.0, "start": 1.0, "end": 2.0}, [1, 1.5, 2]),
        ({"num_frames": 3, "sample_fps": 2.0}, [0, 1, 2.5]),
        ({"max_frames": 2, "fps": 2.0}, [0, 2.5]),
        ({"sample_fps": 4.0, "fps": 2.0, "min_frames": 1}, [0, 0.5, 1.25]),
        ({"times": (0.5, 1.0, 4.0, 5.0, 6.0, 9.0)}, [0.5, 1, 4, 5, 6, 9]),
        ({"indices": (0, 25, 50, 75, 100, 125), "raw_fps": 25.0}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_options_of_frames_state_their_times_and_choose_among_them(options, times):
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(6)]
    sampling = FrameSampling().for_item(MediaOptions(**options))
    video = load(frames, sampling)
    assert video.times.tolist() == pytest.approx(times, abs=0.26 if len(times) == 3 else 1e-9)
    array = load(np.stack([np.asarray(frame) for frame in frames]), sampling)
    assert np.array_equal(array.frames, video.frames)
    assert array.times.tolist() == video.times.tolist()
    found = np.array(video.metadata().frames_indices) / video.metadata().fps
    np.testing.assert_allclose(found, video.times, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"times": (0.0, 1.0)}, "has 6 frames, but its options name 2"),
        ({"indices": (0, 1, 2, 3, 4, 5)}, "lacks raw_fps"),
        ({"start": 9.0}, "no frame from 9 s"),
    ],
)
def test_options_that_frames_contradict_are_refused(options, problem):
    frames = [Image.new("RGB", (8, 8)) for _ in range(6)]
    with pytest.raises(MediaError, match=problem):
        load(frames, FrameSampling().for_item(MediaOptions(**options)))


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["constant", "variable"])
def test_probing_finds_the_size_and_the_times_of_the_frames(times, tmp_path):
    path = tmp_path / "video.mkv"
    path.write_bytes(video_bytes(times))
    array = np.zeros((6, 8, 10, 3), np.uint8)
    for source in (path, {"path": path}, array):
        video = load(source)
        probed = LocalMedia().probe_video(source, sampling=FrameSampling(), where="videos[0]")
        assert probed.frames.shape == video.frames.shape and not probed.frames.any()
        assert probed.times.tolist() == video.times.tolist()
        assert probed.indices.tolist() == video.indices.tolist()
        assert (probed.total_frames, probed.duration) == (video.total_frames, video.duration)
        assert probed.audio is None


def test_an_encoded_video_takes_no_rate_of_its_frames():
    sampling = FrameSampling().for_item(MediaOptions(sample_fps=4.0))
    with pytest.raises(MediaError, match="remove sample_fps"):
        load(video_bytes(EVEN), sampling)
    with pytest.raises(MediaError, match="remove sample_fps"):
        LocalMedia().probe_video(video_bytes(EVEN), sampling=sampling, where="videos[0]")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), "dtype float32"),
        (np.zeros((4, 8, 8), np.uint8), "shape"),
        (np.zeros((4, 3, 8, 3), np.uint8), "could both be the channels"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], "frame 1 has size"),
        ([], "no frames"),
        (7, "video is int"),
    ],
)
def test_frames_that_are_refused(source, problem):
    with pytest.raises(MediaError, match=problem) as raised:
        load(source)
    assert raised.value.where is not None


WHOLE = video_bytes(np.arange(60) / 10, container="mp4")
MATROSKA = video_bytes(np.arange(100) / 5)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "cannot be decoded"),
        (b"<html><body>Not found</body></html>" * 40, "cannot be decoded"),
        (bytes(5000), "cannot be decoded"),
        (WHOLE[: len(WHOLE) // 2], "cannot be decoded"),
        (MATROSKA[: len(MATROSKA) // 2], "is truncated"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "cannot be decoded"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n", "cannot be decoded"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n", "cannot be decoded"),
    ],
    ids=["empty", "html", "zeros", "half mp4", "half matroska", "ffconcat", "url list", "list"],
)
def test_broken_files_are_refused_at_once(data, problem):
    start = time.monotonic()
    with pytest.raises(MediaError, match=problem):
        load(data)
    assert time.monotonic() - start < 2


def test_a_file_without_frames_is_refused():
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.zeros(1600), 16000, format="WAV")
    with pytest.raises(MediaError, match="no video stream"):
        load(file.getvalue())


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"max_pixels": 100}, "max_pixels=100"),
        ({"max_seconds": 1.0}, "max_seconds=1.0"),
        ({"max_frames": 10}, "max_frames=10"),
        ({"max_kept_bytes": 9999}, "max_kept_bytes=9999"),
    ],
)
def test_limits(limits, problem):
    with pytest.raises(MediaError, match=problem):
        load(video_bytes(EVEN), video_limits=VideoLimits(**limits))


def test_encoded_bytes_are_limited_before_reading(tmp_path):
    path = tmp_path / "video.mkv"
    path.write_bytes(video_bytes(EVEN))
    with pytest.raises(MediaError, match="max_bytes=100"):
        load(path, max_video_bytes=100)


@pytest.mark.parametrize(
    "options",
    [
        *({"fps": fps} for fps in (None, 0, float("inf"), 10**400)),
        {"fps": 2.0, "num_frames": 3},
        {"min_frames": 9, "max_frames": 3},
    ],
)
def test_sampling_options_are_checked(options):
    with pytest.raises(ConfigError):
        FrameSampling(**options)


def test_the_audio_of_a_video():
    data = video_bytes(EVEN, audio=True)
    video = LocalMedia().load_video(
        data, sampling=FrameSampling(), sampling_rate=8000, where="videos[0]"
    )
    assert video.audio is not None
    assert len(video.audio) == pytest.approx(8000 * 2.9, rel=0.02)
    assert 0.2 < np.abs(video.audio).max() < 0.4
    silent = LocalMedia().load_video(
        video_bytes(EVEN), sampling=FrameSampling(), sampling_rate=8000, where="videos[0]"
    )
    assert silent.audio is None


def load_with_audio(source, **options):
    return LocalMedia(**options).load_video(
        source, sampling=FrameSampling(), sampling_rate=8000, where="videos[0]"
    )


def test_the_audio_of_a_video_has_limits():
    data = video_bytes(EVEN, audio=20.0)
    assert len(load_with_audio(data).audio) == pytest.approx(8000 * 20, rel=0.01)
    assert load_with_audio(data, max_audio_seconds=20.5).audio is not None
    with pytest.raises(MediaError, match="longer than max_audio_seconds=3") as raised:
        load_with_audio(data, max_audio_seconds=3)
    assert raised.value.where == "videos[0]"
    with pytest.raises(MediaError, match="max_decoded_audio_bytes=9999"):
        load_with_audio(data, max_decoded_audio_bytes=9999)
    load(data, max_audio_seconds=3)  # the audio is not decoded


def test_long_silence_takes_memory_only_for_the_result():
    import tracemalloc

    data = silent_video(seconds=120)
    assert len(data) < 300_000
    tracemalloc.start()
    audio = load_with_audio(data).audio
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(audio) == pytest.approx(8000 * 120, rel=0.01)
    assert peak < 3 * audio.nbytes  # stereo at 48 kHz is 12 times as much
    start = time.monotonic()
    with pytest.raises(MediaError, match="max_audio_seconds=30"):
        load_with_audio(data, max_audio_seconds=30)
    assert time.monotonic() - start < 1


def silent_video(seconds):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = output.add_stream("flac", rate=48000, layout="stereo")
        for _ in range(40):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        for at in range(seconds * 4):
            block = av.AudioFrame.from_ndarray(
                np.zeros((1, 24000), np.int16), format="s16", layout="stereo"
            )
            block.sample_rate, block.pts = 48000, at * 12000
            output.mux(track.encode(block))
        output.mux(track.encode())
    return file.getvalue()


@pytest.mark.parametrize("container", ["flv", "mpegts", "avi"])
def test_containers_that_cannot_seek_or_lack_display_times(container):
    video = load(video_bytes(EVEN, container=container))
    assert shown(video) == video.indices.tolist()
    assert len(video.frames) == 6


@pytest.mark.parametrize(
    ("container", "codec"), [("matroska", b"V_MPEG4/ISO/AVC"), ("mp4", b"avc1")]
)
def test_an_unknown_codec_is_refused(container, codec):
    data = video_bytes(EVEN, container=container)
    assert codec in data
    with pytest.raises(MediaError, match=r"without a known codec|no video stream"):
        load(data.replace(codec, b"zzz9" + codec[4:]))


def test_frames_that_change_their_size_are_refused():
    data = jpeg_frames((64, 48), 8) + jpeg_frames((640, 480), 8)
    with pytest.raises(MediaError, match="changes the size"):
        load(data)
    # the decoder itself allocates no memory for them
    with pytest.raises(MediaError, match=r"exceeds|cannot be decoded"):
        load(data, video_limits=VideoLimits(max_pixels=10_000))


def test_images_as_frames_are_limited_before_decoding(monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(file, "PNG")
    decoded = []
    real = LocalMedia.load_image

    def counted(self, source, *, where):
        decoded.append(where)
        return real(self, source, where=where)

    monkeypatch.setattr(LocalMedia, "load_image", counted)
    frames = [file.getvalue()] * 50
    with pytest.raises(MediaError, match="max_kept_bytes=30000000"):
        load(frames, video_limits=VideoLimits(max_kept_bytes=30_000_000))
    assert decoded == ["videos[0][0]"]
    with pytest.raises(MediaError, match="max_frames=40"):
        load(frames, video_limits=VideoLimits(max_frames=40))
    assert len(decoded) == 1


@pytest.mark.parametrize("container", ["matroska", "mp4", "flv", "mpegts", "avi"])
def test_damaged_videos_raise_only_media_errors(container):
    random = np.random.default_rng(0)
    data = video_bytes(EVEN, container=container, audio=container == "matroska")
    refused = 0
    for _ in range(40):
        try:
            video = load_with_audio(damaged(data, random))
        except MediaError as error:
            assert error.where == "videos[0]"
            refused += 1
        else:
            assert video.duration > 0 and np.isfinite(video.times).all()
            assert video.audio is None or np.isfinite(video.audio).all()
    assert refused
