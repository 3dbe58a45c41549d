"""Opening encoded videos with PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlmcollate.errors import ConfigError, MediaError

_NOT_MEDIA = ("concat", "ffmetadata", "hls", "dash", "sdp", "tty", "image2", "webvtt", "srt", "ass")


@contextmanager
def open_container(data: bytes, name: str, *, max_pixels: int, where: str) -> Iterator[Any]:
    """Opens a container whose format holds its media itself and names no other file.

    Args:
        data: The encoded video.
        name: The video's name in errors.
        max_pixels: The maximum number of pixels of a frame for which a decoder may take memory.
        where: The path inside the sample, for errors.

    Yields:
        PyAV's input container.

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
    # FFmpeg opens nothing that the file names: neither protocols nor other files
    options = {"protocol_whitelist": "none", "max_pixels": str(max_pixels)}
    with decoding_errors(name, where):
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
def decoding_errors(name: str, where: str) -> Iterator[None]:
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
    """Refuses a stream without a decoder or a time base, with a MediaError."""
    if stream.codec_context is None or not stream.time_base:
        raise MediaError(
            f"{name} has a {stream.type} stream without a known codec or time base; encode it "
            "again, for instance with FFmpeg as H.264 and AAC",
            where=where,
        )


def declared_seconds(container: Any, stream: Any) -> float:
    """The length in seconds that the header declares for a stream, 0 if it declares none."""
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    # a container's own length may be that of another stream
    is_alone = len(container.streams) == 1
    return float(container.duration or 0) / 1e6 if is_alone else 0.0
