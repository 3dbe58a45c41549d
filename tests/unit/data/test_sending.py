"""What is sent to an encoding process is there what it was here."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.unit.media.loading.image_checks import encoded
from vlmcollate import collator_for
from vlmcollate.data import prepare_dataset
from vlmcollate.testing import tiny_processor

FORMATS = ["GIF", "PNG", "TIFF", "WEBP"]


def opened(name, frames):
    first, *more = (Image.new("RGB", (56, 56), (60 * k, 9, 9)) for k in range(frames))
    data = encoded(first, name, save_all=True, append_images=more)
    return Image.open(io.BytesIO(data))


def row(image):
    return {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": image}]},
            {"role": "assistant", "content": "Yes"},
        ]
    }


def rows(folder):
    with opened("GIF", 1) as image:
        image.save(folder / "closed.gif")
    with Image.open(folder / "closed.gif") as closed:
        closed.load()
    images = [opened(name, frames) for name in FORMATS for frames in (1, 3)]
    return [row(image) for image in (*images, closed)]


@pytest.mark.parametrize("as_stream", [False, True])
def test_images_of_several_frames_are_refused_in_every_process(tmp_path, as_stream):
    collator = collator_for(tiny_processor())
    written = []
    for num_proc in (1, 2):
        out = tmp_path / str(num_proc)
        manifest = prepare_dataset(
            iter(rows(tmp_path)) if as_stream else rows(tmp_path),
            out,
            collator=collator,
            num_proc=num_proc,
            rows_per_shard=3,
            on_error="skip",
        )
        assert (manifest.samples, dict(manifest.dropped)) == (4, {"MediaError": 5})
        written.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert written[0] == written[1]


def test_a_broken_image_is_refused_alike_in_every_process(tmp_path):
    collator = collator_for(tiny_processor())
    whole = encoded(Image.effect_noise((56, 56), 90), "JPEG")
    written = []
    for num_proc in (1, 2):
        files = (whole, whole[: len(whole) // 2], whole)
        source = [row(Image.open(io.BytesIO(data))) for data in files]
        out = tmp_path / str(num_proc)
        manifest = prepare_dataset(
            source, out, collator=collator, num_proc=num_proc, rows_per_shard=1, on_error="skip"
        )
        assert (manifest.samples, dict(manifest.dropped)) == (2, {"MediaError": 1})
        written.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert "cannot be decoded" in written[0]["rejected.jsonl"].decode()
    assert written[0] == written[1]


@pytest.mark.parametrize("data", [None, "JPEG", "PNG", "TIFF"])
def test_an_orientation_that_is_set_on_an_image_is_sent(data):
    from vlmcollate.data.sending import pickle_task
    from vlmcollate.data.sources import Piece

    exif = Image.Exif()
    exif[0x0112] = 8
    for orientation in (1, 6):
        image = Image.new("RGB", (8, 4))
        if data is not None:
            image = Image.open(io.BytesIO(encoded(image, data, exif=exif)))
            image.load()  # which turns a TIFF
        image.getexif()[0x0112] = orientation
        piece = Piece(source="s", kind="stream", first=0, rows=1, examples=(image,))
        sent, _ = pickle.loads(pickle_task(piece, None))
        assert sent.examples[0].getexif().get(0x0112, 1) == orientation
        assert sent.examples[0].info == image.info


def test_an_image_is_sent_as_it_is(tmp_path):
    from vlmcollate.data.sending import pickle_task
    from vlmcollate.data.sources import Piece

    for name in FORMATS:
        still, animated = opened(name, 1), opened(name, 3)
        piece = Piece(source="s", kind="stream", first=0, rows=2, examples=(still, animated))
        sent, _ = pickle.loads(pickle_task(piece, None))
        for image, found in zip((still, animated), sent.examples, strict=True):
            assert (type(found), found.format, found.mode) == (type(image), name, image.mode)
            np.testing.assert_array_equal(found.convert("RGB"), image.convert("RGB"))
        assert sent.examples[0].info == still.info
