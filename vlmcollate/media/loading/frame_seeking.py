"""Decoding sampled frames by seeking to the key frames before them.

Shapes: F frames in the file, T sampled frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmcollate.media.loading.sampled_frames import SampledFrames
from vlmcollate.media.loading.video_streams import FrameTimes

_LEAST_SKIPPED = 8
"""The number of frames from which on seeking takes less time than decoding them."""

_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""Options with which a decoder refuses damage that it would cover up from the frame before."""


class UnexpectedFrameError(ValueError):
    """A seek, or the decoder after it, did not give the frames that the file lists."""


def skips_frames(shown: FrameTimes, indices: npt.NDArray[np.int64]) -> bool:
    """Returns whether seeking takes less time than decoding all frames.

    Args:
        shown: The times and the key frames of the video.
        indices: (T,) int64, rising, the index of each sampled frame.
    """
    followed = [1, *(indices[:-1] + 1).tolist()]
    return any(
        _skipped(shown.keys, after, index) >= _LEAST_SKIPPED
        for after, index in zip(followed, indices.tolist(), strict=True)
    )


def decode_by_seeking(
    container: Any,
    stream: Any,
    shown: FrameTimes,
    indices: npt.NDArray[np.int64],
    sampled: SampledFrames,
) -> None:
    """Decodes the sampled frames, with a seek if it skips enough frames.

    Every frame that leaves the decoder has to be the next one that the packets list. The first
    packet is always decoded, since a decoder may keep what it finds there.

    Args:
        container: PyAV's container, newly opened.
        stream: Its video stream.
        shown: The times and the key frames of the video.
        indices: (T,) int64, rising, the index of each sampled frame.
        sampled: Takes the frames.

    Raises:
        UnexpectedFrameError: The frames differ from those that the packets list.
    """
    stream.codec_context.options = {**stream.codec_context.options, **_STRICT}
    run, may_seek = _Run(container, stream, shown), True
    run.read_to(0, sampled)
    for index in indices.tolist():
        if may_seek and _skipped(shown.keys, run.next, index) >= _LEAST_SKIPPED:
            reached = run.next
            run.seek(_number_of_keys(shown.keys, index) - 1)
            may_seek = run.next > reached  # the index of a file may lack most key frames
        run.read_to(index, sampled)


def _number_of_keys(keys: npt.NDArray[np.int64], index: int) -> int:
    """The number of key frames up to a frame, itself included."""
    return int(np.searchsorted(keys, index, side="right"))


def _skipped(keys: npt.NDArray[np.int64], after: int, index: int) -> int:
    """The number of frames that a seek skips on the way to a frame."""
    number = _number_of_keys(keys, index)
    return int(keys[number - 1]) - after if number else 0


class _Run:
    """The frames from a key frame on.

    Attributes:
        next: The index of the frame that has to leave the decoder next.
    """

    def __init__(self, container: Any, stream: Any, shown: FrameTimes) -> None:
        self._container, self._stream = container, stream
        self._ticks, self._keys = shown.ticks, shown.keys
        self._frames: Iterator[Any] = container.decode(stream)
        self._first = self.next = 0

    def seek(self, number: int) -> None:
        """Restarts at a key frame, or at an earlier one if the file's index lacks it."""
        self._container.seek(int(self._ticks[self._keys[number]]), stream=self._stream)
        packets = self._container.demux(self._stream)
        packet = next(packets, None)
        at = None if packet is None else packet.pts
        known = self._keys[: number + 1]
        reached = known[self._ticks[known] == at]
        if not len(reached):
            raise UnexpectedFrameError
        self._first = self.next = int(reached[0])
        self._frames = _decoded(packet, packets)

    def read_to(self, index: int, sampled: SampledFrames) -> None:
        """Decodes frames up to an index."""
        while self.next <= index:
            frame = next(self._frames, None)
            if frame is None or frame.pts is None:
                raise UnexpectedFrameError
            if frame.pts < self._ticks[self._first]:
                continue  # it is shown before the key frame, and refers to skipped frames
            if frame.pts != self._ticks[self.next] or frame.is_corrupt:
                raise UnexpectedFrameError
            sampled.take(frame.pts, frame)
            self.next += 1


def _decoded(packet: Any, packets: Iterator[Any]) -> Iterator[Any]:
    yield from packet.decode()
    for later in packets:
        yield from later.decode()
