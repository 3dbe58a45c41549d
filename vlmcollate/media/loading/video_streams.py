"""Finding the video stream of a container, and the times of its frames.

Shapes: F frames in the file, K key frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.containers import check_decodable, decoding_errors
from vlmcollate.media.loading.key_frames import KeyFrameFinder
from vlmcollate.media.loading.videos import VideoLimits


@attrs.frozen(eq=False)
class FrameTimes:
    """The times at which the frames of a stream are shown.

    Attributes:
        ticks: (F,) int64, rising, in units of the stream's time base.
        is_on_frames: Whether decoded frames carry these times.
        keys: (K,) int64, rising, the indices of the frames at which decoding may start; none unless
            frames carry their times.
        end: The time at which the last frame ends, as far as its packet is whole and declares it.
    """

    ticks: npt.NDArray[np.int64]
    is_on_frames: bool
    keys: npt.NDArray[np.int64]
    end: int

    def attach(self, frames: Iterable[Any]) -> Iterator[tuple[int | None, Any]]:
        """Pairs each decoded frame with the time at which it is shown.

        Frames leave the decoder in the order in which they are shown. If they carry no usable
        times, the times in the file, sorted, are theirs.
        """
        for number, frame in enumerate(frames):
            if self.is_on_frames:
                yield frame.pts, frame
            elif number < len(self.ticks):
                yield int(self.ticks[number]), frame


def find_video_stream(container: Any, name: str, limits: VideoLimits, where: str) -> Any:
    """Finds the first video stream that is not a cover image.

    Args:
        container: PyAV's open container.
        name: The video's name in errors.
        limits: The limits of the video; the size of a frame is checked here.
        where: The path inside the sample, for errors.

    Returns:
        PyAV's video stream, whose decoder refuses larger frames, too.

    Raises:
        MediaError: If there is no such stream, it has no decoder, or its frames are too large.
    """
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise MediaError(
            f"{name} has no video stream; pass it as audio, or drop the sample", where=where
        )
    stream = streams[0]
    check_decodable(stream, name, where)
    _check_frame_size(stream.width or 0, stream.height or 0, name, limits, where)
    stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    return stream


def read_frame_times(
    container: Any, stream: Any, name: str, limits: VideoLimits, where: str
) -> FrameTimes:
    """Reads the times of all frames from the packets, without decoding.

    Args:
        container: PyAV's open container.
        stream: Its video stream.
        name: The video's name in errors.
        limits: The limits of the video; its frames and its length are checked here.
        where: The path inside the sample, for errors.

    Returns:
        The times of at least one frame.

    Raises:
        MediaError: If the video is broken, has no frames, no times of frames or too many frames, or
            is too long.
    """
    ticks: set[int] = set()
    finder = KeyFrameFinder(container, stream)
    latest, is_sorted, is_on_frames, end, packets = -math.inf, True, True, 0, 0
    with decoding_errors(name, where):
        for packet in container.demux(stream):
            if packet.size:
                finder.add(packet)
            if packet.size and not packet.is_discard:
                packets += 1
                # some formats, such as AVI, hold only the time to decode a frame
                is_on_frames = is_on_frames and packet.pts is not None
                at = packet.pts if packet.pts is not None else packet.dts
                if at is not None:
                    ticks.add(at)
                    is_sorted, latest = is_sorted and at >= latest, at
                    end = max(end, at + _ticks_shown(packet, stream.codec_context.name))
            if len(ticks) > limits.max_frames:
                raise MediaError(
                    f"{name} has more than max_frames={limits.max_frames} frames; cut it, or raise "
                    "max_frames",
                    where=where,
                )
    if not ticks:
        raise _without_times(packets, name, where)
    _check_seconds((max(ticks) - min(ticks)) * float(stream.time_base), name, limits, where)
    # times that rise although frames are shown in another order are the times to decode them
    if is_sorted and stream.codec_context.has_b_frames:
        is_on_frames = False
    shown = np.array(sorted(ticks), np.int64)
    keys = finder.find(shown)
    return FrameTimes(shown, is_on_frames, keys if is_on_frames else keys[:0], end)


def _ticks_shown(packet: Any, codec: str) -> int:
    """The time for which a frame is shown, 0 if its packet is cut or declares none."""
    # FFmpeg does not mark the last packet of a GIF that was cut, which ends like its blocks or file
    is_cut = packet.is_corrupt or (codec == "gif" and memoryview(packet)[-1] not in b"\0;")
    return 0 if is_cut else packet.duration or 0


def _without_times(packets: int, name: str, where: str) -> MediaError:
    """The error for a stream in which no packet has a time."""
    if not packets:
        return MediaError(f"{name} has no frames; drop the sample", where=where)
    return MediaError(
        f"{name} has {packets} packets and no times of frames, like a raw H.264 or HEVC stream; "
        "encode it again in a container, at its frame rate (ffmpeg -framerate ... -i in.h264 "
        "out.mp4), or pass its frames",
        where=where,
    )


def _check_frame_size(width: int, height: int, name: str, limits: VideoLimits, where: str) -> None:
    if width < 1 or height < 1:
        raise MediaError(
            f"{name} has frames of {width}x{height} pixels; encode it again, or drop the sample",
            where=where,
        )
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{name} has frames of {width}x{height} pixels, more than "
            f"max_pixels={limits.max_pixels}; make it smaller, or raise max_pixels",
            where=where,
        )


def _check_seconds(seconds: float, name: str, limits: VideoLimits, where: str) -> None:
    if seconds > limits.max_seconds:
        raise MediaError(
            f"{name} lasts {seconds:.1f} s, longer than max_seconds={limits.max_seconds}; cut it, "
            "or raise max_seconds",
            where=where,
        )
