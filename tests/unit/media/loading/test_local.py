"""The sources of images that `LocalMedia` opens, and its options."""

from __future__ import annotations

import base64
import copy
import errno
import io
import os
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media import LocalMedia
from vlmcollate.media.loading.data_uris import decode_base64

WHERE = "images[2]"


@pytest.fixture
def red_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path, red_png: bytes) -> Path:
    folder = tmp_path / "root"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a b.png").write_bytes(red_png)
    (tmp_path / "outside.png").write_bytes(red_png)
    return folder


def refusal(source: object, media: LocalMedia | None = None) -> str:
    start = time.monotonic()
    with pytest.raises(MediaError) as caught:
        (media or LocalMedia()).load_image(source, where=WHERE)
    assert time.monotonic() - start < 2
    assert caught.value.where == WHERE
    return str(caught.value)


def is_red(source: object, media: LocalMedia | None = None) -> bool:
    image = (media or LocalMedia()).load_image(source, where=WHERE)
    return image.getpixel((1, 1)) == (255, 0, 0) and image.size == (2, 2)


@pytest.mark.parametrize(
    "url",
    ["http://a.org/x.png", "HTTPS://a.org/x.png", "ftp://a.org/x.png", "s3://bucket/x.png"],
)
def test_urls_are_refused_by_default(url: str) -> None:
    message = refusal(url)
    assert url in message
    assert "download it first" in message
    assert "download it first" in refusal({"bytes": None, "path": url})


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "pipe" in refusal(tmp_path / "pipe.jpg")


def test_devices_directories_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert "device" in refusal("/dev/zero")
    assert "directory" in refusal(tmp_path)
    assert "no file at" in refusal(tmp_path / "missing.jpg")
    assert "directory" in refusal("")


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000, "\ud800.png", "loop/loop.png"])
def test_impossible_paths_are_refused(path: str, root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    refusal(path)
    refusal(path, LocalMedia(root=root))


def test_below_root_relative_and_absolute_paths_open(root: Path) -> None:
    media = LocalMedia(root=root)
    assert is_red("inner/a b.png", media)
    assert is_red(root / "inner" / "a b.png", media)
    assert is_red((root / "inner" / "a b.png").as_uri(), media)
    assert is_red("inner/../inner/a b.png", media)


@pytest.mark.parametrize(
    "path", ["../outside.png", "inner/../../outside.png", "link.png", "up/outside.png"]
)
def test_nothing_outside_root_opens(path: str, root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "outside.png")
    (root / "up").symlink_to(root.parent)
    assert "outside root" in refusal(path, LocalMedia(root=root))
    absolute = root / path
    assert "outside root" in refusal(absolute, LocalMedia(root=root))
    assert "outside root" in refusal(f"file://{absolute}", LocalMedia(root=root))
    assert is_red(absolute)


def test_a_folder_whose_name_starts_like_root_is_outside(root: Path, red_png: bytes) -> None:
    sibling = root.parent / "root2"
    sibling.mkdir()
    (sibling / "x.png").write_bytes(red_png)
    assert "outside root" in refusal(sibling / "x.png", LocalMedia(root=root))


def test_file_uris(root: Path) -> None:
    path = root / "inner" / "a b.png"
    assert is_red(path.as_uri())
    assert is_red(f"file://localhost{path.as_uri()[7:]}")
    assert "host 'server'" in refusal("file://server/x.png")


def test_data_uris(red_png: bytes) -> None:
    text = base64.b64encode(red_png).decode()
    assert is_red(f"data:image/png;base64,{text}")
    assert is_red(f"DATA:;base64,{text}")
    assert "data:image/png;base64," in refusal(f"data:image/png,{text}")
    assert "data URI" in refusal("data:image/png;base64")


@pytest.mark.parametrize("text", ["AAA", "AA=A", "AAAA\nAAAA", "AA-_", "ÄÄÄÄ", "AAAA====A"])
def test_bad_base64_is_refused(text: str) -> None:
    assert "is not base64" in refusal(f"data:image/png;base64,{text}")
    with pytest.raises(MediaError, match="is not base64") as caught:
        decode_base64(text, WHERE)
    assert caught.value.where == WHERE


def test_base64_is_decoded() -> None:
    assert decode_base64("aGk=", WHERE) == b"hi"


def test_long_sources_are_shortened_in_errors() -> None:
    assert len(refusal("A" * 100_000)) < 500
    assert len(refusal("data:image/png;base64," + "-" * 100_000)) < 500


@pytest.mark.parametrize(
    "options",
    [
        {"max_pixels": 0},
        {"max_pixels": True},
        {"max_bytes": -1},
        {"max_bytes": 1.5},
        {"formats": ()},
        {"formats": "PNG"},
        {"formats": ("PNG", "NOPE")},
        {"formats": (1,)},
        {"background": "no colour"},
        {"background": None},
        {"background": (1, 2, 3, 4)},
        {"background": 3},
        {"root": "/no/such/folder"},
        {"root": 3},
    ],
)
def test_bad_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        LocalMedia(**options)


def test_only_the_allowed_formats_open(red_png: bytes) -> None:
    assert is_red(red_png, LocalMedia(formats=["png"]))
    assert "JPEG" in refusal(red_png, LocalMedia(formats=("JPEG",)))


def test_it_is_a_frozen_picklable_value(root: Path) -> None:
    media = LocalMedia(root=root, background=(1, 2, 3))
    assert pickle.loads(pickle.dumps(media)) == media
    assert copy.deepcopy(media) == media
    assert hash(media) == hash(LocalMedia(root=root, background=(1, 2, 3)))
    with pytest.raises(AttributeError):
        media.max_pixels = 3  # type: ignore[misc]  # frozen


def test_a_lack_of_open_files_is_no_fault_of_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (8, 8)).save(path)
    full = OSError(errno.EMFILE, "Too many open files")

    def refuse(*given: object, **options: object) -> int:
        raise full

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files") as caught:
        LocalMedia().load_image(str(path), where="messages[0].content[0]")
    assert caught.value is full
