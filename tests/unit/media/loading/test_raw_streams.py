"""A raw stream has frames, but no times at which they are shown."""

from __future__ import annotations

import pytest

from tests.clips import X264, encode
from vlmcollate import FrameSampling, LocalMedia
from vlmcollate.errors import MediaError


@pytest.mark.parametrize("options", [{}, {"x264-params": "bframes=3"}])
def test_a_raw_stream_is_refused_for_its_missing_times(options):
    raw = encode(X264, "h264", options)
    with pytest.raises(MediaError, match=r"has 90 packets and no times of frames, .* container"):
        LocalMedia().load_video(raw, sampling=FrameSampling(), where="videos[0]")
