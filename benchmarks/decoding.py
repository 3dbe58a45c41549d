"""How long decoding takes beside the slower way to the same pixels, as ratios in one process.

    python -m benchmarks.decoding

Both sides take turns. The times are of the processor, in all threads, since decoders of videos have
threads of their own; each row is the median of the rounds.
"""

from __future__ import annotations

import io
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from tests.clips import encode
from tests.jpeg_bytes import photo
from vlmcollate import FrameSampling, LocalMedia
from vlmcollate.media.loading import video_decoding
from vlmcollate.media.loading.pixel_memory import pixels_of

Row = tuple[str, float, float, float]
MEDIA = LocalMedia()


def compare(base: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """The median seconds of this process in two calls that take turns and return equal arrays."""
    times: tuple[list[float], list[float]] = ([], [])
    if not np.array_equal(base(), ours()):
        raise RuntimeError("the two sides return other pixels")
    for _ in range(rounds):
        for call, taken in zip((base, ours), times, strict=True):
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def images(rounds: int) -> list[Row]:
    """A file to the tensor that a processor takes, against Pillow and a copy of its array."""

    def by_pillow(data: bytes) -> torch.Tensor:
        with Image.open(io.BytesIO(data)) as image:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def load(data: bytes) -> torch.Tensor:
        pixels = pixels_of(MEDIA.load_image(data, where="images[0]"))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    rows = []
    for format_name, size, options, limit in (
        ("JPEG", (4000, 3000), {"quality": 90}, 0.75),
        ("JPEG", (1600, 1200), {"quality": 90}, 0.9),  # torchvision alone takes 0.8
        ("JPEG", (640, 480), {"quality": 90}, 1.0),
        ("progressive JPEG", (1600, 1200), {"quality": 90, "progressive": True}, 0.95),
        ("PNG", (4000, 3000), {"compress_level": 1}, 1.1),
    ):
        buffer = io.BytesIO()
        photo(size).save(buffer, format_name.split()[-1], **options)
        data = buffer.getvalue()
        times = compare(partial(by_pillow, data), partial(load, data), rounds)
        rows.append((f"{format_name} of {size[0]}x{size[1]} / Pillow", *times, limit))
    return rows


def videos(rounds: int) -> list[Row]:
    """The sampled frames of a clip of 180 s against decoding it from its start."""
    data = encode(
        "libx264", "mp4", {"preset": "veryfast"}, times=range(5400), size=(320, 240), gop=48
    )

    def load(sampling: FrameSampling) -> Any:
        return MEDIA.load_video(data, sampling=sampling, where="videos[0]").frames

    def decode_all(sampling: FrameSampling) -> Any:
        with mock.patch.object(video_decoding, "skips_frames", return_value=False):
            return load(sampling)

    rows = []
    for name, sampling, limit in (
        ("8 frames", FrameSampling(fps=None, num_frames=8), 0.15),
        ("32 frames", FrameSampling(fps=None, num_frames=32), 0.5),
        ("a frame per second", FrameSampling(fps=1.0), 1.1),
        ("2 frames per second", FrameSampling(fps=2.0), 1.1),
    ):
        times = compare(partial(decode_all, sampling), partial(load, sampling), rounds)
        rows.append((f"{name} of 180 s, 320x240 / all frames", *times, limit))
    return rows


def main() -> None:
    """Measures and prints."""
    torch.set_num_threads(1)
    rounds = int(os.environ.get("ROUNDS", "7"))
    table = Table("what", "base ms", "ours ms", "ratio", "limit")
    for what, base, ours, limit in [*images(rounds), *videos(rounds)]:
        ratio = ours / base
        style = "green" if ratio <= limit else "red"
        numbers = (f"{1000 * base:.1f}", f"{1000 * ours:.1f}", f"[{style}]{ratio:.2f}", f"{limit}")
        table.add_row(what, *numbers)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
