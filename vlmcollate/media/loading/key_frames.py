"""The frames of a video at which decoding may start without changing a later frame.

A container's mark of a key frame is not enough: H.264 also marks frames after which others refer to
earlier ones. So the encoded frame has to be of a type that resets its decoder.

Shapes: F frames in the file, K key frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

_CONTAINERS = frozenset({"mov", "matroska"})
"""The containers whose index is precise."""
_Resets = Callable[[memoryview], bool]


class KeyFrameFinder:
    """Finds the key frames of a stream among its packets.

    Args:
        container: PyAV's open container.
        stream: Its video stream.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        is_precise = not _CONTAINERS.isdisjoint(container.format.name.split(","))
        self._kind = _Stream.of(stream.codec_context) if is_precise else None
        self._found: list[int] = []
        self._latest: int | None = None
        self._number = 0
        self._parameters: set[bytes] = set()

    def add(self, packet: Any) -> None:
        """Takes the next packet, in the order of the file."""
        if self._kind is None:
            return
        at = packet.pts
        if at is None:
            self._kind = None
            return
        is_shown = not packet.is_discard
        self._number += is_shown
        resets, parameters = self._kind.read(memoryview(packet))
        is_start = is_shown and packet.is_keyframe and resets
        # frames that precede it in the file have to be shown before it
        is_start = is_start and (self._latest is None or at > self._latest)
        if is_start:
            self._found.append(at)
            self._parameters.add(parameters)
        if len(self._parameters) > 1 or (parameters and not is_start):
            self._kind = None  # a decoder that skips frames could miss their parameters
        self._latest = at if self._latest is None else max(self._latest, at)

    def find(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns the key frames; none if the stream leaves any doubt.

        Args:
            ticks: (F,) int64, rising, the times at which the frames are shown.

        Returns:
            (K,) int64, rising, their indices among the frames.
        """
        if self._kind is None or self._number != len(ticks):
            return np.empty(0, np.int64)
        return np.searchsorted(ticks, np.array(self._found, np.int64))


@attrs.frozen
class _Stream:
    """How the packets of a codec are read.

    Attributes:
        resets: Whether a unit of a packet resets the decoder.
        is_parameters: Whether a unit holds parameters of later frames.
        length_size: The number of bytes of the length before each unit, 0 if a packet is one unit.
    """

    resets: _Resets
    is_parameters: _Resets | None = None
    length_size: int = 0

    @classmethod
    def of(cls, codec: Any) -> _Stream | None:
        """Returns how packets of a PyAV codec context are read, or `None` if they are not."""
        if codec.name in _WHOLE_PACKETS:
            return cls(_WHOLE_PACKETS[codec.name])
        if codec.name not in _UNITS:
            return None
        resets, is_parameters, place = _UNITS[codec.name]
        header = codec.extradata or b""
        # the first byte of other headers is the 0 of a start code
        if len(header) <= place or header[0] != 1:
            return None
        return cls(resets, is_parameters, (header[place] & 3) + 1)

    def read(self, packet: memoryview) -> tuple[bool, bytes]:
        """Returns whether a packet resets the decoder, and the parameters in it."""
        if self.is_parameters is None:
            return self.resets(packet), b""
        resets, parameters = False, b""
        for unit in self._units(packet):
            resets = resets or self.resets(unit)
            if self.is_parameters(unit):
                parameters += bytes(unit)
        return resets, parameters

    def _units(self, packet: memoryview) -> Iterator[memoryview]:
        at = 0
        while at + self.length_size < len(packet):
            start = at + self.length_size
            at = start + int.from_bytes(packet[at:start], "big")
            if at > start:
                yield packet[start:at]


def _vp8_resets(packet: memoryview) -> bool:
    return len(packet) > 5 and not packet[0] & 1 and bytes(packet[3:6]) == b"\x9d\x01\x2a"


def _vp9_resets(packet: memoryview) -> bool:
    # two bits of a marker, two of a profile below 3, no repeated frame, a key frame
    return (
        len(packet) > 0 and packet[0] >> 6 == 2 and packet[0] >> 4 != 0b1011 and not packet[0] & 12
    )


def _av1_resets(packet: memoryview) -> bool:
    """Whether the first frame of a packet is a key frame that is shown, after its parameters."""
    has_sequence = False
    for kind, payload in _av1_units(packet):
        if kind == 1:
            has_sequence = True
        elif kind in (3, 6):  # the header of a frame, alone or with the frame
            # not repeated, of type 0, shown
            return has_sequence and len(payload) > 0 and payload[0] >> 4 == 0b0001
    return False


def _av1_units(packet: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(packet):
        header = packet[at]
        at += 2 if header & 4 else 1
        if not header & 2:  # it has no size, and lasts to the end
            yield header >> 3 & 15, packet[at:]
            return
        size = shift = 0
        while at < len(packet):
            byte = packet[at]
            size, shift, at = size | (byte & 0x7F) << shift, shift + 7, at + 1
            if not byte & 0x80:
                break
        yield header >> 3 & 15, packet[at : at + size]
        at += size


def _h264_kind(unit: memoryview) -> int:
    return unit[0] & 31


def _hevc_kind(unit: memoryview) -> int:
    return unit[0] >> 1 & 63


_WHOLE_PACKETS: dict[str, _Resets] = {
    "vp8": _vp8_resets,
    "vp9": _vp9_resets,
    "av1": _av1_resets,
    "libdav1d": _av1_resets,
}
_UNITS: dict[str, tuple[_Resets, _Resets, int]] = {
    # instantaneous refreshes; sets of parameters; the place of the size of lengths in the header
    "h264": (
        lambda unit: _h264_kind(unit) == 5,
        lambda unit: _h264_kind(unit) in (7, 8, 13, 15),
        4,
    ),
    # random access frames; those that are shown after one refer to none before it
    "hevc": (lambda u: 16 <= _hevc_kind(u) <= 21, lambda u: 32 <= _hevc_kind(u) <= 34, 21),
}
