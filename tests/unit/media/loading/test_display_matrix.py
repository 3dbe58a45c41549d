"""The frames of a video are turned and mirrored as its display matrix demands."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
import pytest

from tests.clips import X264, encode
from vlmcollate import FrameSampling, LocalMedia
from vlmcollate.errors import MediaError

ONE, TURNED = 0x10000, 0xB505
MATRICES = {
    "as it is": ((ONE, 0, 0, ONE), lambda x: x),
    "clockwise": ((0, ONE, -ONE, 0), lambda x: np.rot90(x, -1)),
    "half a turn": ((-ONE, 0, 0, -ONE), lambda x: np.rot90(x, 2)),
    "counterclockwise": ((0, -ONE, ONE, 0), lambda x: np.rot90(x)),
    "mirrored": ((-ONE, 0, 0, ONE), lambda x: x[:, ::-1]),
    "upside down": ((ONE, 0, 0, -ONE), lambda x: x[::-1]),
    "mirrored, clockwise": ((0, ONE, ONE, 0), lambda x: x.transpose(1, 0, 2)),
    "mirrored, counterclockwise": ((0, -ONE, -ONE, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
    "rounded": ((1, 0xFFFF, -0xFFFF, 1), lambda x: np.rot90(x, -1)),
    "scaled": ((-2 * ONE, 0, 0, 2 * ONE), lambda x: x[:, ::-1]),
}


@cache
def clip():
    return encode(X264, "mp4", times=range(20))


def load(entries, *, probe=False, perspective=0):
    a, b, c, d = entries
    data, at = bytearray(clip()), clip().index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, perspective, c, d, 0, 0, 0, 0x40000000)
    media = LocalMedia()
    run = media.probe_video if probe else media.load_video
    return run(bytes(data), sampling=FrameSampling(fps=5.0), where="videos[0]").frames


@pytest.mark.parametrize("name", MATRICES)
def test_frames_are_turned_and_mirrored(name):
    entries, turn = MATRICES[name]
    upright = load((ONE, 0, 0, ONE))
    frames = load(entries)
    assert len(frames) == len(upright) > 1
    for found, frame in zip(frames, upright, strict=True):
        assert np.array_equal(found, turn(frame))
    assert load(entries, probe=True).shape == frames.shape


@pytest.mark.parametrize(
    "entries",
    [
        (TURNED, TURNED, -TURNED, TURNED),
        (0xFFFF, 0x1000, -0x1000, 0xFFFF),
        (0, 0, 0, 0),
        (ONE, 0, 0, 0),
    ],
    ids=["45 degrees", "4 degrees", "zeros", "flat"],
)
def test_other_angles_are_refused(entries):
    with pytest.raises(MediaError, match=r"display matrix \(.*\), which turns .* no right angle"):
        load(entries)


def test_perspective_is_refused():
    with pytest.raises(MediaError, match="display matrix"):
        load((ONE, 0, 0, ONE), perspective=1 << 29)
