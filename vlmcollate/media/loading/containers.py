"""Opening encoded videos, and decoding their audio.

Shapes: N samples, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.audio import AudioLimits, Samples, mono_of_blocks

_NOT_MEDIA = ("concat", "ffmetadata", "hls", "dash", "sdp", "tty", "image2", "webvtt", "srt", "ass")


@contextmanager
def opened(data: bytes, name: str, *, max_pixels: int, where: str) -> Iterator[Any]:
    """An open container, of a format that holds its media itself and names no other file.

    Args:
        data: The encoded video.
        name: What to call it in errors.
        max_pixels: The most pixels of a frame for which a decoder may take memory.
        where: The place in the sample, for errors.

    Raises:
        MediaError: If it is broken or not a video.
        ConfigError: If PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError(
            "videos are decoded by PyAV, which is not installed; run "
            "pip install 'vlmcollate[video]'"
        ) from error
    # nothing that the file may name is opened: neither protocols nor other files
    options = {"protocol_whitelist": "none", "max_pixels": str(max_pixels)}
    with told(name, where):
        container = av.open(io.BytesIO(data), options=options)
    with container:
        names = set(container.format.name.split(","))
        if names & set(_NOT_MEDIA):
            raise MediaError(
                f"{name} is a {container.format.long_name} and not a video; pass the video itself",
                where=where,
            )
        yield container


@contextmanager
def told(name: str, where: str) -> Iterator[None]:
    """Turns what PyAV raises on broken data into a MediaError."""
    import av

    try:
        yield
    except MediaError:
        raise
    except (av.error.FFmpegError, OSError, EOFError, ValueError, IndexError) as error:
        raise MediaError(
            f"{name} cannot be decoded ({type(error).__name__}: {error}); expected a whole, "
            "undamaged video; fetch or encode it again, or drop the sample",
            where=where,
        ) from error


def check_decodable(stream: Any, name: str, where: str) -> None:
    """Refuses a stream for whose codec there is no decoder, or whose clock has no unit."""
    if stream.codec_context is None or not stream.time_base:
        raise MediaError(
            f"{name} has a {stream.type} stream without a known codec or time base; encode it "
            "again, for instance with FFmpeg as H.264 and AAC",
            where=where,
        )


def stated_seconds(container: Any, stream: Any) -> float:
    """How long the file says that a stream lasts, 0 where it does not say."""
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    # a container's own length may be that of another stream
    alone = len(container.streams) == 1
    return float(container.duration or 0) / 1e6 if alone else 0.0


def soundtrack(
    data: bytes, name: str, *, target: int, limits: AudioLimits, max_pixels: int, where: str
) -> Samples | None:
    """Decodes the first audio stream of an encoded video.

    Args:
        data: The encoded video.
        name: What to call it in errors.
        target: The sampling rate that is wanted.
        limits: What the audio may not exceed, checked while it is decoded.
        max_pixels: The most pixels of a video frame, which is looked at to know the format.
        where: The place in the sample, for errors.

    Returns:
        (N,) float32, mono, or `None` if the video has no audio.

    Raises:
        MediaError: If the audio is broken or too long.
    """
    name = f"the audio of {name}"
    with opened(data, name, max_pixels=max_pixels, where=where) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        check_decodable(stream, name, where)
        limits.check_seconds(stated_seconds(container, stream), name, where)
        blocks = _blocks(container, stream, name, where)
        return mono_of_blocks(blocks, name, target=target, limits=limits, where=where)


def _blocks(
    container: Any, stream: Any, name: str, where: str
) -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Blocks of (N, C) samples with their sampling rates."""
    import av

    resampler: Any = av.AudioResampler(format="fltp")
    frames = container.decode(stream)
    rate, is_open = 0, True
    while is_open:
        with told(name, where):
            frame: Any = next(frames, None)
            is_open = frame is not None
            rate = frame.sample_rate if is_open else rate
            pieces = [piece.to_ndarray().T for piece in resampler.resample(frame)] if rate else []
        for piece in pieces:
            yield piece, rate
