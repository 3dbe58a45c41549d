"""Videos made for a test, whose frames tell by their grey which they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

STEP = 4
"""How much lighter each frame is than the one before."""


def video_bytes(
    times: Sequence[float] | np.ndarray[Any, Any],
    *,
    size: tuple[int, int] = (64, 48),
    container: str = "matroska",
    sound: bool = False,
) -> bytes:
    """An encoded video whose frames are shown at these seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        track = output.add_stream("flac", rate=16000) if sound else None
        for i, at in enumerate(times):
            pixels = np.full((size[1], size[0], 3), STEP * i % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(float(at) * 1000), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if track is not None:
            _add_tone(output, track, float(times[-1]))
    return file.getvalue()


def _add_tone(output: Any, track: Any, seconds: float) -> None:
    samples = (np.sin(np.arange(int(16000 * seconds)) / 20) * 10000).astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(
            samples[None, start : start + 1024], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 16000, start
        output.mux(track.encode(frame))
    output.mux(track.encode())
