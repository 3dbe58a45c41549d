"""Moving clips of many codecs and containers for tests, and their frames.

Each has 90 frames, with a key frame every 12.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np

FRAMES = 90
SIZE = (96, 64)


def encode(
    codec: str,
    container: str,
    options: Mapping[str, str] | None = None,
    *,
    times: Sequence[int] | None = None,
    size: tuple[int, int] = SIZE,
    gop: int = 12,
    pixels: str = "yuv420p",
    seed: int = 0,
) -> bytes:
    """Encodes a clip.

    Args:
        codec: The encoder, by its name in FFmpeg.
        container: The format, by its name in FFmpeg.
        options: The options of the encoder.
        times: The time of each frame in thirtieths of a second; one by one by default.
        size: The width and the height.
        gop: The number of frames from one key frame to the next.
        pixels: The format of pixels.
        seed: The seed of the image that moves.
    """
    file, (width, height) = io.BytesIO(), size
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=30, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.gop_size = gop
        for i, at in enumerate(times or range(FRAMES)):
            moved = np.roll(image, (2 * i, 3 * i), (0, 1))
            moved[:8, :8] = 2 * i % 256
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def remux(*clips: bytes, container: str, shift: int = 0, **options: str) -> bytes:
    """Copies the packets of clips, one behind the other, into a container.

    Args:
        clips: The clips, of one codec.
        container: The format, by its name in FFmpeg.
        shift: The number of frames by which all times are moved.
        options: The options of the container.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        target: Any = None
        for number, data in enumerate(clips):
            with opened(data) as source:
                stream = source.streams.video[0]
                target = target or output.add_stream_from_template(stream)
                frame = round(1 / 30 / stream.time_base)
                for packet in source.demux(stream):
                    if packet.size and packet.pts is not None and packet.dts is not None:
                        moved = (shift + number * FRAMES) * frame
                        packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                        packet.stream = target
                        output.mux(packet)
    return file.getvalue()


def without_index(data: bytes) -> bytes:
    """Breaks the index of a Matroska file."""
    return data.replace(b"\x1c\x53\xbb\x6b", b"\xec\xec\xec\xec")


def without_key_frames(data: bytes) -> bytes:
    """Removes the list of key frames from an MP4 file, so that all frames count as such."""
    return data.replace(b"stss", b"free")


def with_wrong_key_frames(data: bytes) -> bytes:
    """Moves the key frames in the list of an MP4 file, except for the first, by three frames."""
    broken, at = bytearray(data), data.index(b"stss") + 12
    for i in range(1, int.from_bytes(data[at - 4 : at], "big")):
        place = slice(at + 4 * i, at + 4 * i + 4)
        broken[place] = (int.from_bytes(broken[place], "big") + 3).to_bytes(4, "big")
    return bytes(broken)


def opened(data: bytes) -> Any:
    """Returns PyAV's container of an encoded clip."""
    return av.open(io.BytesIO(data))


X264, X265, VP9 = "libx264", "libx265", "libvpx-vp9"
UNEVEN = np.cumsum(np.random.default_rng(0).choice([1, 2, 7], FRAMES)).tolist()
_ALT = {"cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
_LIVE = {"cpu-used": "8", "deadline": "realtime"}
_QUIET = "keyint=12:min-keyint=12:log-level=none"

CLIPS: dict[str, tuple[Callable[[], bytes], bool]] = {
    "h264 mp4": (lambda: encode(X264, "mp4"), True),
    "h264 matroska": (lambda: encode(X264, "matroska"), True),
    "h264 4:4:4": (lambda: encode(X264, "matroska", pixels="yuv444p"), True),
    "h264 uneven": (lambda: encode(X264, "mp4", times=UNEVEN), True),
    "h264 uneven matroska": (lambda: encode(X264, "matroska", times=UNEVEN), True),
    "h264 fragments": (
        lambda: remux(clip("h264 mp4"), container="mp4", movflags="frag_keyframe+empty_moov"),
        True,
    ),
    "h264 mov": (lambda: remux(clip("h264 mp4"), container="mov"), True),
    "h264 late": (lambda: remux(clip("h264 mp4"), container="mp4", shift=60), True),
    "h264 late matroska": (lambda: remux(clip("h264 mp4"), container="matroska", shift=600), True),
    "h264 without index": (lambda: without_index(clip("h264 matroska")), True),
    "h264 headers repeated": (
        lambda: encode(X264, "mp4", {"x264-params": "repeat-headers=1"}),
        True,
    ),
    "hevc open mp4": (lambda: encode(X265, "mp4", {"x265-params": _QUIET}), True),
    "hevc open matroska": (lambda: remux(clip("hevc open mp4"), container="matroska"), True),
    "hevc closed": (
        lambda: encode(X265, "mp4", {"x265-params": f"{_QUIET}:open-gop=0"}),
        True,
    ),
    "h264 no key frames": (lambda: without_key_frames(clip("h264 mp4")), True),
    "vp8": (lambda: encode("libvpx", "webm", _LIVE), True),
    "vp8 hidden frames": (lambda: encode("libvpx", "webm", _ALT), True),
    "vp9": (lambda: encode(VP9, "webm", _LIVE), True),
    "vp9 hidden frames": (lambda: encode(VP9, "webm", _ALT), True),
    "vp9 mp4": (lambda: remux(clip("vp9"), container="mp4"), True),
    "vp9 without index": (lambda: without_index(clip("vp9")), True),
    "av1": (
        lambda: encode("libsvtav1", "mp4", {"preset": "12", "svtav1-params": "keyint=12"}),
        True,
    ),
    # decoded from the start
    "h264 open": (
        lambda: encode(X264, "mp4", {"x264-params": "open-gop=1:bframes=3:keyint=12"}),
        False,
    ),
    "h264 open matroska": (lambda: remux(clip("h264 open"), container="matroska"), False),
    "h264 refresh": (
        lambda: encode(X264, "matroska", {"x264-params": "intra-refresh=1:keyint=12"}),
        False,
    ),
    "h264 other headers": (
        lambda: remux(
            clip("h264 headers repeated"),
            encode(X264, "mp4", {"x264-params": "repeat-headers=1:cabac=0"}, seed=1),
            container="mp4",
        ),
        False,
    ),
    "h264 mpegts": (lambda: remux(clip("h264 mp4"), container="mpegts"), False),
    "h264 flv": (lambda: remux(clip("h264 mp4"), container="flv"), False),
    "h264 wrong key frames": (lambda: with_wrong_key_frames(clip("h264 mp4")), False),
    "mpeg4 mp4": (lambda: encode("mpeg4", "mp4"), False),
    "mpeg4 avi": (lambda: encode("mpeg4", "avi"), False),
    "mpeg2": (lambda: encode("mpeg2video", "matroska"), False),
}
"""How each clip is made, and whether seeking gives its frames."""
_MADE: dict[str, bytes] = {}


def clip(name: str) -> bytes:
    """Returns a clip of `CLIPS`, which is made once."""
    if name not in _MADE:
        _MADE[name] = CLIPS[name][0]()
    return _MADE[name]


@cache
def frames_of(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns all frames of a clip, (FRAMES, H, W, 3), decoded from its start."""
    with opened(clip(name)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
