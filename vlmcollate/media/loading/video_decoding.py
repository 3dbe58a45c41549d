"""Decoding the sampled frames of encoded videos.

Shapes: T sampled frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.containers import (
    declared_seconds,
    decoding_errors,
    open_container,
)
from vlmcollate.media.loading.frame_arrays import check_kept_bytes
from vlmcollate.media.loading.frame_seeking import decode_by_seeking, skips_frames
from vlmcollate.media.loading.sampled_frames import SampledFrames
from vlmcollate.media.loading.sampling import FrameSampling
from vlmcollate.media.loading.video_streams import FrameTimes, find_video_stream, read_frame_times
from vlmcollate.media.loading.videos import Video, VideoLimits


def decode_video(
    data: bytes,
    name: str,
    *,
    sampling: FrameSampling,
    limits: VideoLimits,
    where: str,
    with_pixels: bool = True,
) -> Video:
    """Decodes the sampled frames of an encoded video.

    Args:
        data: The encoded video.
        name: The video's name in errors.
        sampling: Which frames are wanted.
        limits: The limits of the video.
        where: The path inside the sample, for errors.
        with_pixels: Whether to decode all of them. If not, the frames are black, and only the first
            one is decoded, for its size.

    Returns:
        The frames, upright, and the true times at which they are shown.

    Raises:
        MediaError: If the video is broken, truncated, too large, or has no frames.
        ConfigError: If PyAV is not installed.
    """
    with open_container(data, name, max_pixels=limits.max_pixels, where=where) as container:
        stream = find_video_stream(container, name, limits, where)
        declared = declared_seconds(container, stream)
        shown = read_frame_times(container, stream, name, limits, where)
        single_gap = _single_gap(stream)
        times = (shown.ticks - shown.ticks[0]) * float(stream.time_base)
        end = float((shown.end - shown.ticks[0]) * stream.time_base)
        size = stream.width, stream.height
        # a container's own length counts from 0, and a stream's from its first frame
        start = max(int(shown.ticks[0]), 0) * float(stream.time_base)
        late = start if stream.duration is None else 0.0
    indices = sampling.pick(times, where=where)
    check_kept_bytes(len(indices), size, limits, where)
    decoded = indices if with_pixels else indices[:1]
    frames = _decode(data, name, shown, decoded, limits, where)
    if not with_pixels:
        frames = np.broadcast_to(np.uint8(0), (len(indices), *frames.shape[1:]))
    gap = float(times[-1]) / (len(times) - 1) if len(times) > 1 else single_gap
    last = float(times[-1])
    _check_whole(last + late, max(last + gap, end) + late, declared, name, where)
    total, duration = sampling.span(times, indices, gap)
    return Video(
        frames=frames,
        times=times[indices],
        indices=indices,
        total_frames=total,
        duration=duration,
    )


def _decode(
    data: bytes,
    name: str,
    shown: FrameTimes,
    indices: npt.NDArray[np.int64],
    limits: VideoLimits,
    where: str,
) -> npt.NDArray[np.uint8]:
    """The frames at the indices, (T, H, W, 3) uint8."""

    @contextmanager
    def opened() -> Iterator[tuple[Any, Any, SampledFrames]]:
        # not every format can seek back to its start
        with open_container(data, name, max_pixels=limits.max_pixels, where=where) as container:
            stream = find_video_stream(container, name, limits, where)
            wanted = shown.ticks[indices]
            yield (
                container,
                stream,
                SampledFrames(wanted=wanted, name=name, limits=limits, where=where),
            )

    if skips_frames(shown, indices):
        # decoding from the start gives the frames, or the error
        with suppress(MediaError), opened() as (container, stream, sampled):
            with decoding_errors(name, where):
                decode_by_seeking(container, stream, shown, indices, sampled)
            return sampled.pixels
    with opened() as (container, stream, sampled), decoding_errors(name, where):
        for at, frame in shown.attach(container.decode(stream)):
            sampled.take(at, frame)
            if not sampled.missing:
                break
        return sampled.pixels


def _single_gap(stream: Any) -> float:
    """The seconds for which the only frame of a video is shown."""
    rate = stream.average_rate
    return 1 / float(rate) if rate and rate > 0 else 1.0


def _check_whole(last: float, end: float, declared: float, name: str, where: str) -> None:
    if end < 0.9 * declared - 1:
        raise MediaError(
            f"{name} is truncated: its header declares {declared:.1f} s, but the last frame is at "
            f"{last:.1f} s; fetch or encode it again, or drop the sample",
            where=where,
        )
