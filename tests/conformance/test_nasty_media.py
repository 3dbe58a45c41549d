"""Nasty media through a whole collator: a good sample, or an error that names sample and place."""

from __future__ import annotations

import base64
import gc
import http.server
import io
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tests.media_bytes import video_bytes
from tests.processors import processor_of
from vlmcollate import BaseCollator, LocalMedia, UrlFetcher, collator_for
from vlmcollate.errors import MediaError

RATE = 16000
TONE = (np.sin(np.arange(RATE) / 20) * 0.3).astype(np.float32)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def with_bad_crc() -> bytes:
    data = bytearray(encoded(PICTURE))
    data[data.index(b"IDAT") - 8 - 1] ^= 1
    data[-5] ^= 1
    return bytes(data)


def claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (8, 8))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def wav(samples: Any, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PICTURE, "JPEG", exif=exif)


FRAMES = [np.full((48, 64, 3), 30 * i, np.uint8) for i in range(4)]
UNEVEN = np.cumsum([0.0, 0.03, 0.9, 0.05, 0.4, 0.7, 0.1, 0.5])
GOOD: dict[str, tuple[str, Callable[[], Any]]] = {
    "cmyk": ("image", lambda: encoded(PICTURE.convert("CMYK"), "JPEG")),
    "palette": ("image", lambda: encoded(PICTURE.convert("P"))),
    "16 bit": ("image", lambda: encoded(Image.fromarray(np.full((9, 9), 40000, np.uint16)))),
    "exif": ("image", rotated),
    "1x1": ("image", lambda: Image.new("RGB", (1, 1), "red")),
    "video of uneven rate": ("video", lambda: video_bytes(UNEVEN)),
    "int16 sound": ("audio", lambda: ((TONE * 32767).astype(np.int16), RATE)),
    "stereo sound": ("audio", lambda: wav(np.stack([TONE, -TONE / 2], axis=1))),
}
BAD: dict[str, tuple[str, Callable[[], Any]]] = {
    "truncated": ("image", lambda: encoded(PICTURE)[:600]),
    "bad checksum": ("image", with_bad_crc),
    "50000 x 50000": ("image", lambda: claiming(50_000, 50_000)),
    "bomb": ("image", lambda: encoded(Image.new("1", (12_000, 12_000)))),
    "float tiff": ("image", lambda: encoded(Image.new("F", (9, 9), 0.5), "TIFF")),
    "animated": (
        "image",
        lambda: encoded(
            PICTURE.convert("P"),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", PICTURE.size, i) for i in (1, 2)],
        ),
    ),
    "1x5000": ("image", lambda: Image.new("RGB", (1, 5000), "red")),
    "html": ("image", lambda: b"<html><body>404</body></html>"),
    "eps": ("image", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "bad base64": ("image", lambda: "data:image/png;base64,@@@@"),
    "floats": ("image", lambda: np.full((9, 9, 3), 0.5, np.float32)),
    "nan sound": ("audio", lambda: (np.array([0.0, np.nan] * 800, np.float32), RATE)),
    "empty sound": ("audio", lambda: (np.zeros(0, np.float32), RATE)),
    "no rate": ("audio", lambda: TONE),
    "two axes": ("audio", lambda: (np.zeros((800, 2), np.float32), RATE)),
    "no sound file": ("audio", lambda: b"RIFF????WAVEfmt "),
    "truncated video": ("video", lambda: video_bytes(UNEVEN, container="mp4")[:700]),
    "video without a picture": ("video", lambda: wav(TONE)),
    "empty video": ("video", lambda: b""),
    "no frames": ("video", list),
    "float frames": ("video", lambda: np.zeros((4, 9, 9, 3), np.float32)),
}

NO_FILES = {"int16 sound", "floats", "nan sound", "empty sound", "no rate", "two axes"}
NO_FILES |= {"bad base64", "no frames", "float frames"}


def in_both_forms(names: dict[str, Any]) -> list[tuple[str, str]]:
    forms = [(name, "as it is") for name in names]
    return forms + [(name, "path") for name in names if name not in NO_FILES]


@pytest.fixture(scope="module")
def collator() -> BaseCollator:
    built = collator_for(processor_of("qwen3_omni"))
    gc.collect()  # what other modules left would be collected in the time of a test
    return built


@pytest.fixture(autouse=True)
def _within_two_seconds(collator: BaseCollator) -> Iterator[None]:
    """Nothing takes two seconds of work, nor waits; other processes may take this one's time."""
    del collator
    start, worked = time.monotonic(), time.process_time()
    yield
    assert time.process_time() - worked < 2
    assert time.monotonic() - start < 20


def chat(kind: str, source: Any) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": "What?"}, {"type": kind, kind: source}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "That."}]


PLAIN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def refused(collator: BaseCollator, kind: str, source: Any, *, names: str = "") -> None:
    with pytest.raises(MediaError) as caught:
        collator([PLAIN, chat(kind, source)])
    assert caught.value.index == 1
    message = str(caught.value)
    assert message.startswith("sample 1, messages[0].content[1]")
    assert names in message


def as_source(kind: str, made: Any, form: str, folder: Path) -> Any:
    if form == "as it is":
        return made
    path = folder / f"file.{'jpg' if kind == 'image' else 'bin'}"
    path.write_bytes(made if isinstance(made, bytes) else encoded(made))
    return str(path)


@pytest.mark.parametrize(("name", "form"), in_both_forms(GOOD))
def test_it_is_served(collator: BaseCollator, name: str, form: str, tmp_path: Path) -> None:
    kind, make = GOOD[name]
    made = make()
    batch = collator([PLAIN, chat(kind, as_source(kind, made, form, tmp_path))])
    key = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}[kind]
    assert torch.isfinite(batch[key]).all()
    assert batch[f"n_{kind}s_per_sample"].tolist() == [0, 1]
    trained = batch["labels"][1][batch["labels"][1] != -100]
    assert collator.processor.tokenizer.decode(trained) == "That.<|im_end|>"


@pytest.mark.parametrize(("name", "form"), in_both_forms(BAD))
def test_it_is_refused(collator: BaseCollator, name: str, form: str, tmp_path: Path) -> None:
    kind, make = BAD[name]
    made = make()
    refused(collator, kind, as_source(kind, made, form, tmp_path))


@pytest.mark.parametrize("kind", ["image", "video", "audio"])
def test_what_is_no_file_is_refused(collator: BaseCollator, kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", ".", "missing.jpg", "/dev/zero"):
        path = tmp_path / name
        refused(collator, kind, str(path))


def test_a_link_out_of_the_root_is_refused(collator: BaseCollator, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(PICTURE))
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    below = attrs.evolve(collator, media=LocalMedia(root=root))
    refused(below, "image", "link.png", names="link.png")
    refused(below, "image", "../secret.png", names="secret.png")


def test_no_request_reaches_this_machine(collator: BaseCollator) -> None:
    asked: list[str] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/a.png"
        hosts = ("127.0.0.1", "169.254.169.254", "localhost")
        allowing = LocalMedia(fetcher=UrlFetcher(hosts=hosts, timeout=1))
        for media in (LocalMedia(), allowing):
            asking = attrs.evolve(collator, media=media)
            for source in (url, "http://169.254.169.254/latest/meta-data"):
                refused(asking, "image", source, names=source)
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def test_one_picture_in_four_forms_gives_the_same_bits(
    collator: BaseCollator, tmp_path: Path
) -> None:
    data = encoded(PICTURE)
    (tmp_path / "a.png").write_bytes(data)
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    sources = [PICTURE, data, str(tmp_path / "a.png"), np.asarray(PICTURE), uri]
    first, *rest = [collator([chat("image", source)])["pixel_values"] for source in sources]
    assert all(torch.equal(first, other) for other in rest)
