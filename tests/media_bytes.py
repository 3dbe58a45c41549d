"""Videos for tests, whose frames are numbered by their grey."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

STEP = 4
"""The difference in grey between a frame and the next."""


def video_bytes(
    times: Sequence[float] | np.ndarray[Any, Any],
    *,
    size: tuple[int, int] = (64, 48),
    container: str = "matroska",
    audio: bool | float = False,
) -> bytes:
    """Encodes a video.

    Args:
        times: The time of each frame in seconds.
        size: The width and the height.
        container: The format, by its name in FFmpeg.
        audio: The length of the audio in seconds; `True` for the video's, `False` for none.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        track = output.add_stream("flac", rate=16000) if audio else None
        for i, at in enumerate(times):
            pixels = np.full((size[1], size[0], 3), STEP * i % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(float(at) * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if track is not None:
            _add_tone(output, track, float(times[-1]) if audio is True else audio)
    return file.getvalue()


def jpeg_frames(size: tuple[int, int], number: int) -> bytes:
    """Encodes a video of JPEG frames, to which another may be appended."""
    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p"
        for _ in range(number):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Damages the bytes at one to four places, mostly in the header or the index at the end."""
    broken = bytearray(data)
    for _ in range(random.integers(1, 5)):
        if len(broken) < 8:
            break
        top = min(len(broken), 1200) if random.random() < 0.6 else len(broken)
        at = int(random.integers(0, top - 4))
        if random.random() < 0.2:
            at = len(broken) - 4 - int(random.integers(0, top - 4))
        kind = int(random.integers(0, 5))
        if kind == 0:
            broken[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            del broken[at : at + int(random.integers(1, 200))]
        elif kind == 2:
            broken[at:at] = random.bytes(3)
        elif kind == 3:
            words = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
            broken[at : at + 4] = words[int(random.integers(0, 4))]
        else:
            broken[at] = int(random.integers(0, 256))
    return bytes(broken)


def _add_tone(output: Any, track: Any, seconds: float) -> None:
    samples = (np.sin(np.arange(int(16000 * seconds)) / 20) * 10000).astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(
            samples[None, start : start + 1024], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 16000, start
        output.mux(track.encode(frame))
    output.mux(track.encode())
