"""The frames of a video, and the options that choose and limit them.

Shapes: T sampled frames, H rows, W columns, N audio samples.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.errors import ConfigError
from vlmcollate.media.loading.options import above_zero
from vlmcollate.plain_values import show
from vlmcollate.validators import at_least_one

MIN_FPS, MAX_FPS = 1e-6, 1e6
"""The frame rates that are taken; models multiply the times of frames in float32."""


def _a_frame_rate(_: object, option: attrs.Attribute[Any], value: object) -> None:
    above_zero(_, option, value)
    if not value <= MAX_FPS:  # type: ignore[operator]  # a number, as just found
        raise ConfigError(f"{option.name} must be at most {MAX_FPS:g}, not {show(value)}")


@attrs.frozen(kw_only=True)
class FrameSampling:
    """Which frames of a video are sampled, evenly over its time.

    Args:
        fps: Frames per second; `None` if `num_frames` is set.
        num_frames: The number of frames, whatever the video's length; `None` if `fps` is set.
        min_frames: The minimum number of frames with `fps`, if the video has as many.
        max_frames: The maximum number of frames with `fps`.

    Raises:
        ConfigError: If both or neither of `fps` and `num_frames` are set, or a number is out of
            range.

    Example:
        >>> FrameSampling(fps=2.0).pick(np.arange(10) / 10).tolist()
        [0, 3, 6, 9]
    """

    fps: float | None = attrs.field(
        default=2.0,
        validator=attrs.validators.optional(_a_frame_rate),  # type: ignore[arg-type]  # of 2.0's type
    )
    num_frames: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least_one)
    )
    min_frames: int = attrs.field(default=4, validator=at_least_one)
    max_frames: int = attrs.field(default=768, validator=at_least_one)

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other."""
        if (self.fps is None) == (self.num_frames is None):
            raise ConfigError(
                "FrameSampling takes one of fps and num_frames; set the other to None"
            )
        if self.min_frames > self.max_frames:
            raise ConfigError(
                f"min_frames={self.min_frames} is above max_frames={self.max_frames}; lower it, or "
                "raise max_frames"
            )

    def pick(self, times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Chooses frames.

        Args:
            times: The time of each frame in seconds, rising, at least one.

        Returns:
            (T,) int64, the indices of the frames nearest to evenly spaced moments, rising. A frame
            that is nearest to several moments is taken once.
        """
        # the last frame is shown for as long as the average one
        span = float(times[-1] - times[0])
        duration = span * len(times) / max(len(times) - 1, 1)
        wanted = self.num_frames or min(
            max(round(duration * (self.fps or 1)), self.min_frames), self.max_frames
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
    """The limits of one video.

    Args:
        max_pixels: The maximum number of pixels (width times height) of a frame.
        max_seconds: The maximum length in seconds.
        max_frames: The maximum number of frames in the file, sampled or not.
        max_kept_bytes: The maximum number of bytes of the sampled frames, decoded.

    Raises:
        ConfigError: If a limit is not a number above 0.
    """

    max_pixels: int = attrs.field(default=64_000_000, validator=at_least_one)
    max_seconds: float = attrs.field(default=4 * 3600.0, validator=above_zero)
    max_frames: int = attrs.field(default=500_000, validator=at_least_one)
    max_kept_bytes: int = attrs.field(default=4 << 30, validator=at_least_one)


@attrs.frozen(kw_only=True, eq=False)
class Video:
    """The sampled frames of a video.

    Attributes:
        frames: (T, H, W, 3) uint8, upright RGB.
        times: (T,) float64, the time of each frame, in seconds from the first frame of the file.
        indices: (T,) int64, the index of each frame in the file.
        total_frames: The number of frames in the file.
        duration: The length of the video in seconds.
        audio: (N,) float32, the video's audio at the model's sampling rate, or `None` if the video
            has none or it was not asked for.
    """

    frames: npt.NDArray[np.uint8]
    times: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]
    total_frames: int
    duration: float
    audio: npt.NDArray[np.float32] | None = None

    @property
    def sampled_fps(self) -> float:
        """The number of sampled frames per second of the video."""
        return len(self.frames) / self.duration

    def metadata(self) -> Any:
        """Makes the `VideoMetadata` of transformers, with the true times of the frames.

        A processor computes a frame's time as its index divided by the frame rate. If the frames
        come at irregular times, the indices count milliseconds at a rate of 1000 instead.
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
