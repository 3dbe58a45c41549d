"""Decoding the audio of encoded videos.

Shapes: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmcollate.media.loading.audio_arrays import Samples
from vlmcollate.media.loading.audio_limits import AudioLimits
from vlmcollate.media.loading.containers import (
    check_decodable,
    declared_seconds,
    decoding_errors,
    open_container,
)
from vlmcollate.media.loading.resampling import mono_from_blocks


def decode_soundtrack(
    data: bytes, name: str, *, target: int, limits: AudioLimits, max_pixels: int, where: str
) -> Samples | None:
    """Decodes the first audio stream of an encoded video.

    Args:
        data: The encoded video.
        name: The video's name in errors.
        target: The wanted sampling rate in Hz.
        limits: The limits of the audio, checked while it is decoded.
        max_pixels: The maximum number of pixels of a video frame, of which FFmpeg may decode some
            to find out the format.
        where: The path inside the sample, for errors.

    Returns:
        (N,) float32, mono, or `None` if the video has no audio.

    Raises:
        MediaError: If the audio is broken or too long.
        ConfigError: If PyAV, or soxr if it is needed, is not installed.
    """
    name = f"the audio of {name}"
    with open_container(data, name, max_pixels=max_pixels, where=where) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        check_decodable(stream, name, where)
        limits.check_seconds(declared_seconds(container, stream), name, where)
        blocks = _blocks(container, stream, name, where)
        return mono_from_blocks(blocks, name, target=target, limits=limits, where=where)


def _blocks(
    container: Any, stream: Any, name: str, where: str
) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Blocks of shape (N, C), each with its sampling rate in Hz."""
    import av

    resampler: Any = av.AudioResampler(format="fltp")
    frames = container.decode(stream)
    rate, is_open = 0, True
    while is_open:
        with decoding_errors(name, where):
            frame: Any = next(frames, None)
            is_open = frame is not None
            rate = frame.sample_rate if is_open else rate
            pieces = [piece.to_ndarray().T for piece in resampler.resample(frame)] if rate else []
        for piece in pieces:
            yield piece, rate
