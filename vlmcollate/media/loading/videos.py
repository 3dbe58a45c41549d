"""Decoding videos by the times at which their frames are shown.

Shapes: T frames kept, H rows, W columns, N sound samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.containers import check_decodable, opened, stated_seconds, told
from vlmcollate.plain_values import show

_SLOWEST_FPS, _FASTEST_FPS = 1e-6, 1e6  # a model multiplies the times of frames in float32


def _above_zero(_: object, option: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ConfigError(f"{option.name} must be a number above 0, not {value!r}")


def _frame_rate(_: object, option: attrs.Attribute[Any], value: object) -> None:
    _above_zero(_, option, value)
    if not value <= _FASTEST_FPS:  # type: ignore[operator]  # a number, as just found
        raise ConfigError(f"{option.name} must be at most {_FASTEST_FPS:g}, not {show(value)}")


def _whole(_: object, option: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{option.name} must be a whole number above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class FrameSampling:
    """Which frames of a video are taken, evenly over its time.

    Args:
        fps: Frames a second; `None` where `num_frames` says it all.
        num_frames: How many frames, however long the video is.
        min_frames: The fewest frames with `fps`, as far as the video has them.
        max_frames: The most frames with `fps`.

    Example:
        >>> FrameSampling(fps=2.0).pick(np.arange(10) / 10).tolist()
        [0, 3, 6, 9]
    """

    fps: float | None = attrs.field(
        default=2.0,
        validator=attrs.validators.optional(_frame_rate),  # type: ignore[arg-type]  # of 2.0's type
    )
    num_frames: int | None = attrs.field(default=None, validator=attrs.validators.optional(_whole))
    min_frames: int = attrs.field(default=4, validator=_whole)
    max_frames: int = attrs.field(default=768, validator=_whole)

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other."""
        if (self.fps is None) == (self.num_frames is None):
            raise ConfigError(
                "FrameSampling takes one of fps and num_frames; set the other to None"
            )
        if self.min_frames > self.max_frames:
            raise ConfigError(f"min_frames={self.min_frames} is above max_frames={self.max_frames}")

    def pick(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Chooses frames.

        Args:
            times: When each frame is shown, in seconds, rising.

        Returns:
            (T,) the indices of the frames nearest to evenly spaced moments, rising. One that is
            nearest to several moments is taken once.
        """
        # the last frame is shown as long as the average one
        span = float(times[-1] - times[0])
        lasts = span * len(times) / max(len(times) - 1, 1)
        wanted = self.num_frames or min(
            max(round(lasts * (self.fps or 1)), self.min_frames), self.max_frames
        )
        number = min(wanted, len(times))
        moments = np.linspace(times[0], times[-1], number)
        after = np.clip(np.searchsorted(times, moments), 1, max(len(times) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(times) - 1)
        nearest = np.where(moments - times[before] <= times[after] - moments, before, after)
        return np.unique(nearest).astype(np.int64)


@attrs.frozen(kw_only=True)
class VideoLimits:
    """What a video may not exceed.

    Args:
        max_pixels: Pixels of one frame.
        max_seconds: The video's length.
        max_frames: Frames in the file, kept or not.
        max_kept_bytes: Bytes of the frames that are kept, decoded.
    """

    max_pixels: int = attrs.field(default=64_000_000, validator=_whole)
    max_seconds: float = attrs.field(default=4 * 3600.0, validator=_above_zero)
    max_frames: int = attrs.field(default=500_000, validator=_whole)
    max_kept_bytes: int = attrs.field(default=4 << 30, validator=_whole)


@attrs.frozen(kw_only=True, eq=False)
class Video:
    """The frames of a video that the model sees.

    Attributes:
        frames: (T, H, W, 3) uint8, upright RGB.
        times: (T,) float64, when each is shown, in seconds from the first frame of the file.
        indices: (T,) int64, which frame of the file each is.
        total_frames: How many frames the file has.
        duration: Its length in seconds.
        audio: (N,) float32, the sound at the rate of the model, where that was asked for.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]
    total_frames: int
    duration: float
    audio: npt.NDArray[np.float32] | None = None

    @property
    def sampled_fps(self) -> float:
        """Frames kept a second of the video."""
        return len(self.frames) / self.duration

    def metadata(self) -> Any:
        """What a `transformers` processor has to know, with the true times of the frames.

        A processor takes a frame's index divided by the rate for its time. Where frames come at
        irregular times, the indices count milliseconds at a rate of 1000 instead.
        """
        from transformers.video_utils import VideoMetadata

        fps = self.total_frames / self.duration
        indices, total = self.indices, self.total_frames
        if not np.allclose(indices / fps, self.times, rtol=0, atol=0.05 / fps):
            fps, total = 1000.0, round(self.duration * 1000)
            indices = np.rint(self.times * 1000).astype(np.int64)
        return VideoMetadata(
            total_num_frames=total,
            fps=fps,
            width=self.frames.shape[2],
            height=self.frames.shape[1],
            duration=self.duration,
            video_backend="pyav",
            frames_indices=indices.tolist(),
        )


def decode_video(
    data: bytes,
    name: str,
    *,
    sampling: FrameSampling,
    limits: VideoLimits,
    where: str,
    with_pixels: bool = True,
) -> Video:
    """Decodes the wanted frames of an encoded video.

    Args:
        data: The encoded video.
        name: What to call it in errors.
        sampling: Which frames are wanted.
        limits: What the video may not exceed.
        where: The place in the sample, for errors.
        with_pixels: Whether to decode them; else the frames are black, and only the first one is
            decoded, for its size.

    Returns:
        The frames, turned upright, and the true times at which they are shown.

    Raises:
        MediaError: If the video is broken, cut short, too large, or has no frames.
        ConfigError: If PyAV is not installed.
    """
    with opened(data, name, max_pixels=limits.max_pixels, where=where) as container:
        stream = _video_stream(container, name, limits, where)
        stated = stated_seconds(container, stream)
        shown, is_dated = _shown_at(container, stream, name, limits, where)
        single_gap = _single_gap(stream)
        times = (shown - shown[0]) * float(stream.time_base)
    indices = sampling.pick(times)
    # not every format can seek back to its start
    with opened(data, name, max_pixels=limits.max_pixels, where=where) as container:
        stream = _video_stream(container, name, limits, where)
        check_kept(len(indices), stream, limits, where)
        wanted = shown[indices if with_pixels else indices[:1]]
        dated = _dated(container.decode(stream), None if is_dated else shown)
        frames = _decoded(dated, wanted, name, limits, where)
    if not with_pixels:
        frames = np.broadcast_to(np.uint8(0), (len(indices), *frames.shape[1:]))
    gap = float(times[-1]) / (len(times) - 1) if len(times) > 1 else single_gap
    if times[-1] + gap < 0.9 * stated - 1:
        raise MediaError(
            f"{name} breaks off: it states {stated:.1f} s, but its frames end at "
            f"{times[-1]:.1f} s; fetch or encode it again, or drop the sample",
            where=where,
        )
    return Video(
        frames=frames,
        times=times[indices],
        indices=indices,
        total_frames=len(times),
        duration=float(times[-1]) + gap,
    )


def frames_video(
    frames: object,
    *,
    fps: float | None,
    default_fps: float,
    limits: VideoLimits,
    where: str,
) -> Video:
    """Takes frames that were chosen already.

    Args:
        frames: (T, H, W, 3) or (T, 3, H, W) uint8, or RGB images of one size.
        fps: Their rate, or `None`.
        default_fps: The rate where none is stated.
        limits: What the video may not exceed.
        where: The place in the sample, for errors.

    Raises:
        MediaError: If the dtype or the shape is not one of these, or a frame has another size.
    """
    pixels = _stacked(frames, where) if isinstance(frames, list) else _channels_last(frames, where)
    if not len(pixels):
        raise MediaError("the video has no frames; drop it", where=where)
    number = isinstance(fps, int | float | np.number) and not isinstance(fps, bool)
    if fps is not None and not (number and _SLOWEST_FPS <= fps <= _FASTEST_FPS):
        raise MediaError(
            f"fps is {show(fps)}, expected a number from {_SLOWEST_FPS:g} to {_FASTEST_FPS:g}",
            where=where,
        )
    if pixels.shape[1] * pixels.shape[2] > limits.max_pixels or len(pixels) > limits.max_frames:
        raise MediaError(
            f"the video has {len(pixels)} frames of {pixels.shape[2]}x{pixels.shape[1]}, more than "
            f"max_frames={limits.max_frames} or max_pixels={limits.max_pixels} allow",
            where=where,
        )
    rate = float(fps or default_fps)
    indices = np.arange(len(pixels))
    return Video(
        frames=pixels,
        times=indices / rate,
        indices=indices,
        total_frames=len(pixels),
        duration=len(pixels) / rate,
    )


def _video_stream(container: Any, name: str, limits: VideoLimits, where: str) -> Any:
    """The first video stream that is not a cover image."""
    import av

    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise MediaError(
            f"{name} has no video stream; pass it as audio, or drop the sample", where=where
        )
    stream = streams[0]
    check_decodable(stream, name, where)
    width, height = stream.width or 0, stream.height or 0
    if width < 1 or height < 1:
        raise MediaError(
            f"{name} has frames of {width}x{height} pixels; encode it again, or drop the sample",
            where=where,
        )
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{name} has frames of {width}x{height} pixels, more than "
            f"max_pixels={limits.max_pixels}; make it smaller, or raise the limit",
            where=where,
        )
    stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    return stream


def check_kept(number: int, frame: Any, limits: VideoLimits, where: str) -> None:
    """Refuses so many frames of a size, with a MediaError."""
    needed = frame.width * frame.height * 3 * number
    if needed > limits.max_kept_bytes:
        raise MediaError(
            f"{number} frames of {frame.width}x{frame.height} need {needed} bytes, more than "
            f"max_kept_bytes={limits.max_kept_bytes}; sample fewer or smaller frames",
            where=where,
        )


def _shown_at(
    container: Any, stream: Any, name: str, limits: VideoLimits, where: str
) -> tuple[npt.NDArray[np.int64], bool]:
    """When each frame is shown, rising, from the packets alone; and whether frames keep that."""
    shown: set[int] = set()
    latest, is_sorted, is_dated = -math.inf, True, True
    with told(name, where):
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                # some formats, as AVI, state no time to show a frame, only one to decode it
                is_dated = is_dated and packet.pts is not None
                at = packet.pts if packet.pts is not None else packet.dts
                if at is not None:
                    shown.add(at)
                    is_sorted, latest = is_sorted and at >= latest, at
            if len(shown) > limits.max_frames:
                raise MediaError(
                    f"{name} has more than max_frames={limits.max_frames} frames", where=where
                )
    if not shown:
        raise MediaError(f"{name} has no frames; drop the sample", where=where)
    seconds = (max(shown) - min(shown)) * float(stream.time_base)
    if seconds > limits.max_seconds:
        raise MediaError(
            f"{name} lasts {seconds:.1f} s, longer than max_seconds={limits.max_seconds}",
            where=where,
        )
    # Times that rise although frames are shown in another order are those to decode them.
    if is_sorted and stream.codec_context.has_b_frames:
        is_dated = False
    return np.array(sorted(shown), np.int64), is_dated


def _dated(
    frames: Iterable[Any], shown: npt.NDArray[np.int64] | None
) -> Iterator[tuple[int | None, Any]]:
    """Each frame with the time at which it is shown.

    Frames leave the decoder in the order in which they are shown. Where that is all that is known,
    the times to decode them, in order, are the times to show them.
    """
    for number, frame in enumerate(frames):
        if shown is None:
            yield frame.pts, frame
        elif number < len(shown):
            yield int(shown[number]), frame


def _decoded(
    frames: Iterable[tuple[int | None, Any]],
    wanted: npt.NDArray[np.int64],
    name: str,
    limits: VideoLimits,
    where: str,
) -> npt.NDArray[np.uint8]:
    """The frames shown at the wanted times."""
    left = set(wanted.tolist())
    found: dict[int, npt.NDArray[np.uint8]] = {}
    with told(name, where):
        for at, frame in frames:
            if at is not None and at in left:
                if frame.is_corrupt:
                    raise MediaError(
                        f"{name} is damaged at {frame.time:.1f} s; fetch or encode it again, or "
                        "drop the sample",
                        where=where,
                    )
                pixels = _upright(frame)
                if found and pixels.shape != next(iter(found.values())).shape:
                    raise MediaError(
                        f"{name} changes its size in mid-video; encode it again", where=where
                    )
                check_kept(len(wanted), frame, limits, where)
                found[at] = pixels
                left.discard(at)
                if not left:
                    break
    if left:
        raise MediaError(
            f"{name} breaks off: {len(left)} of the {len(wanted)} wanted frames cannot be decoded; "
            "fetch or encode it again, or drop the sample",
            where=where,
        )
    return np.stack([found[at] for at in wanted.tolist()])


def _upright(frame: Any) -> npt.NDArray[np.uint8]:
    turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))


def _single_gap(stream: Any) -> float:
    """How long the only frame of a video is shown."""
    rate = stream.average_rate
    return 1 / float(rate) if rate and rate > 0 else 1.0


def _stacked(images: Sequence[Image.Image], where: str) -> npt.NDArray[np.uint8]:
    for i, image in enumerate(images):
        if image.size != images[0].size:
            raise MediaError(
                f"frame {i} has size {image.size}, but frame 0 has {images[0].size}; bring the "
                "frames of a video to one size",
                where=where,
            )
    return np.stack([np.asarray(image) for image in images]) if images else np.empty((0,), np.uint8)


def _channels_last(frames: object, where: str) -> npt.NDArray[np.uint8]:
    if not isinstance(frames, np.ndarray | torch.Tensor):
        raise MediaError(f"a video is {type(frames).__name__}", where=where)
    pixels = frames.detach().cpu().numpy() if isinstance(frames, torch.Tensor) else frames
    if pixels.dtype != np.uint8:
        raise MediaError(
            f"a video array has dtype {pixels.dtype}, expected uint8 from 0 to 255; scale it (0..1 "
            "by 255), round and clip, then convert it",
            where=where,
        )
    shape = pixels.shape
    if len(shape) != 4 or (shape[1] != 3 and shape[3] != 3):
        raise MediaError(
            f"a video array has shape {shape}, expected (T, H, W, 3) or (T, 3, H, W)", where=where
        )
    if shape[1] == 3 and shape[3] == 3:
        raise MediaError(
            f"a video array has shape {shape}, and its second or its last axis could be the "
            "channels; pass a list of images",
            where=where,
        )
    return np.ascontiguousarray(pixels if shape[3] == 3 else pixels.transpose(0, 2, 3, 1))
