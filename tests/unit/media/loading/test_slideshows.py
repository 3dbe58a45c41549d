"""A video whose last frame is shown for long is whole, unless its file was cut."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import pytest
from PIL import Image

from vlmcollate import FrameSampling, LocalMedia
from vlmcollate.errors import MediaError

FRAMES = [Image.new("RGB", (64, 48), (20 * i,) * 3) for i in range(10)]
SLIDESHOWS = [("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("webm", "vp9")]


def load(data):
    return LocalMedia().load_video(data, sampling=FrameSampling(fps=0.2), where="videos[0]")


def slideshow(container, codec):
    """Frames at 0, 5 and 10 s, of which the last one lasts 20 s."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 0
        stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for i, image in enumerate(FRAMES[:3]):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = 5000 * i, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet, seconds in zip(packets, (5, 5, 20), strict=True):
            packet.duration = round(seconds / packet.time_base)
            output.mux(packet)
    return file.getvalue()


def gif(last):
    file = io.BytesIO()
    durations = [100] * 9 + [last]
    FRAMES[0].save(file, "GIF", save_all=True, append_images=FRAMES[1:], duration=durations)
    return file.getvalue()


@pytest.mark.parametrize(("container", "codec"), SLIDESHOWS)
def test_a_slideshow_is_whole(container, codec):
    assert load(slideshow(container, codec)).times.tolist() == [0.0, 5.0, 10.0]


@pytest.mark.parametrize("last", [100, 1500, 5000])
def test_the_last_frame_of_a_gif_may_be_shown_for_long(last):
    data = gif(last)
    assert load(data).indices.tolist()[-1] == 9
    assert load(data[:-1]).indices.tolist()[-1] == 9  # without the byte that ends the file
    if last > 1000:
        with pytest.raises(MediaError, match="truncated"):
            load(data[:-60])


@pytest.mark.parametrize(("container", "codec"), SLIDESHOWS[2:])
def test_a_slideshow_without_its_last_frame_is_truncated(container, codec):
    data = slideshow(container, codec)
    index = data.rindex(b"\x1c\x53\xbb\x6b")
    with pytest.raises(MediaError, match=r"truncated: its header declares 30\.0 s"):
        load(data[: index - 20])
