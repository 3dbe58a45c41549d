"""The choice of the frames of a video.

Shapes: F frames of a file, T sampled frames.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from vlmcollate.conversation import NO_OPTIONS, MediaOptions
from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.options import above_zero
from vlmcollate.plain_values import show
from vlmcollate.validators import at_least_one

MIN_FPS, MAX_FPS = 1e-6, 1e6
"""The frame rates that are taken; models multiply the times of frames in float32."""
_SLACK = 1e-6
"""The rounding error of times, in frames and in seconds."""


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
        multiple_of: A number of which the number of frames is a multiple, if the video has as many
            frames; rounded down with `fps`, and to the nearest with `num_frames`.
        item: The options of one video, which are part of the others already, and its range and
            choice of frames.

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
    multiple_of: int = attrs.field(default=1, validator=at_least_one)
    item: MediaOptions = NO_OPTIONS

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

    def for_item(self, item: MediaOptions, *, multiple_of: int = 1) -> FrameSampling:
        """Returns the sampling of one video, whose own options come first.

        Args:
            item: The options of the video.
            multiple_of: A number of which the number of frames is a multiple if the video has
                options.
        """
        if item == NO_OPTIONS:
            return self
        least = item.min_frames or min(self.min_frames, item.max_frames or self.max_frames)
        return FrameSampling(
            fps=item.fps or (None if item.num_frames else self.fps),
            num_frames=item.num_frames or (None if item.fps else self.num_frames),
            min_frames=least,
            max_frames=item.max_frames or max(self.max_frames, least),
            multiple_of=multiple_of,
            item=item,
        )

    def pick(self, times: npt.NDArray[np.float64], *, where: str = "") -> npt.NDArray[np.int64]:
        """Chooses frames.

        Args:
            times: (F,), the time of each frame in seconds, rising, at least one.
            where: The path of the video inside the sample, for errors.

        Returns:
            (T,) int64, the indices of the frames nearest to evenly spaced moments, rising. A frame
            that is nearest to several moments is taken once.

        Raises:
            MediaError: If the video ends before its range starts, or lacks a frame that its options
                name.
        """
        chosen = self._chosen(times, where)
        if chosen is not None:
            return chosen
        first, last = self.bounds(times, where=where)
        within = times[first:last]
        moments = np.linspace(within[0], within[-1], self._number(within))
        return first + np.unique(_nearest(within, moments))

    def bounds(self, times: npt.NDArray[np.float64], *, where: str = "") -> tuple[int, int]:
        """Returns the frames among which is sampled, as the first index and the one after the last.

        Args:
            times: (F,), the time of each frame in seconds, rising, at least one.
            where: The path of the video inside the sample, for errors.

        Raises:
            MediaError: If the video ends before its range starts.
        """
        start, end = self.item.start or 0.0, self.item.end
        first = int(np.searchsorted(times, times[0] + start - _SLACK))
        last = len(times)
        if end is not None:
            last = int(np.searchsorted(times, times[0] + end + _SLACK, side="right"))
        if first >= last:
            until = "the end" if end is None else f"{end:g} s"
            raise MediaError(
                f"the video has no frame from {start:g} s to {until}: its last frame is at "
                f"{times[-1] - times[0]:.3f} s; correct video_start and video_end",
                where=where,
            )
        return first, last

    def span(
        self, times: npt.NDArray[np.float64], picked: npt.NDArray[np.int64], gap: float
    ) -> tuple[int, float]:
        """Returns the number of frames, and the seconds, of the part that is sampled.

        Args:
            times: (F,), the time of each frame in seconds, rising, at least one.
            picked: (T,), the frames that `pick` chose.
            gap: The average seconds between two frames.
        """
        if self.item.times is None and self.item.indices is None:
            first, last = self.bounds(times)
            return last - first, float(times[last - 1] - times[first]) + gap
        # as many as even sampling at the same rate would take
        steps = max(len(picked) - 1, 1)
        total = max(round(len(picked) * int(picked[-1] - picked[0]) / steps), 1)
        return total, total * gap

    def _number(self, times: npt.NDArray[np.float64]) -> int:
        """The number of moments for frames at these times."""
        # the last frame is shown for as long as the average one
        duration = float(times[-1] - times[0]) * len(times) / max(len(times) - 1, 1)
        step, available = self.multiple_of, len(times)
        if self.num_frames is not None:
            number = max(round(self.num_frames / step) * step, step)
        elif step == 1:
            number = min(max(round(duration * self.fps), self.min_frames), self.max_frames)  # type: ignore[operator]  # one is set
        else:
            least, most = math.ceil(self.min_frames / step) * step, self.max_frames // step * step
            wanted = min(max(duration * self.fps, least), most, available)  # type: ignore[operator]  # likewise
            number = max(math.floor(wanted / step + _SLACK) * step, step)
        return min(number, available // step * step or available)

    def _chosen(self, times: npt.NDArray[np.float64], where: str) -> npt.NDArray[np.int64] | None:
        """The frames that the options of the video name one by one, if any."""
        item = self.item
        if item.indices is not None and item.raw_fps is None:
            if item.indices[-1] >= len(times):
                raise MediaError(
                    f"frames_indices names frame {item.indices[-1]}, but the video has "
                    f"{len(times)} frames; correct it",
                    where=where,
                )
            return np.array(item.indices, np.int64)
        moments = named_times(item)
        if moments is None:
            return None
        gap = float(times[-1] - times[0]) / max(len(times) - 1, 1)
        if moments[-1] > times[-1] - times[0] + gap + _SLACK:
            raise MediaError(
                f"a frame at {moments[-1]:g} s is asked for, but the last frame of the video is at "
                f"{times[-1] - times[0]:.3f} s; correct timestamps, or frames_indices and raw_fps",
                where=where,
            )
        found = _nearest(times, times[0] + moments)
        if len(np.unique(found)) < len(found):
            raise MediaError(
                "two of the times that are asked for show the same frame of the video; correct "
                "timestamps, or frames_indices and raw_fps",
                where=where,
            )
        return found


def named_times(item: MediaOptions) -> npt.NDArray[np.float64] | None:
    """Returns the time of each frame in seconds, (T,), that the options of a video name, if any."""
    if item.times is not None:
        return np.array(item.times)
    if item.indices is not None and item.raw_fps is not None:
        return np.array(item.indices) / item.raw_fps
    return None


def _nearest(
    times: npt.NDArray[np.float64], moments: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The index of the frame nearest to each moment, the earlier one of two."""
    after = np.clip(np.searchsorted(times, moments), 1, max(len(times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(times) - 1)
    nearest = np.where(moments - times[before] <= times[after] - moments, before, after)
    return nearest.astype(np.int64)
