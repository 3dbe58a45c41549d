from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vlmcollate import ConfigError, LocalMedia, collator_for
from vlmcollate.data import token_counts, within_length
from vlmcollate.errors import ConversationError
from vlmcollate.testing import tiny_processor


def chat(*parts):
    content = [*parts, {"type": "text", "text": "What is this?"}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes"}]


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_images_size_is_that_of_the_upright_one(format, orientation):
    data = encoded(Image.new("RGB", (40, 24)), format, exif=turned(orientation))
    media = LocalMedia()
    whole = media.load_image(data, where="")
    assert media.image_size(data, where="") == (whole.height, whole.width)


def test_arrays_and_images_in_memory_have_sizes():
    assert LocalMedia().image_size(np.zeros((14, 16, 3), np.uint8), where="") == (14, 16)
    assert LocalMedia().image_size(Image.new("RGB", (6, 4)), where="") == (4, 6)


def test_counts_are_the_lengths_of_encoded_samples():
    collator = collator_for(tiny_processor(), max_length=20, on_overlong="drop")
    images = [Image.new("RGB", size) for size in ((30, 90), (400, 200))]
    dataset = [chat(), *(chat({"type": "image", "image": image}) for image in images)]
    whole = collator_for(tiny_processor())
    assert token_counts(dataset, collator).tolist() == [len(whole.encode(e)) for e in dataset]


def test_a_length_unknown_from_sizes_is_encoded_or_refused():
    class Opaque(LocalMedia):
        def image_size(self, source, *, where):
            return None

    collator = collator_for(tiny_processor(), media=Opaque())
    dataset = [chat({"type": "image", "image": Image.new("RGB", (30, 90))})]
    assert token_counts(dataset, collator).tolist() == [len(collator.encode(dataset[0]))]
    with pytest.raises(ConfigError, match=r"sample 0 .* encode_unknown=True"):
        token_counts(dataset, collator, encode_unknown=False)


def test_a_bad_example_is_named_by_its_index():
    with pytest.raises(ConversationError, match="sample 1"):
        token_counts([chat(), 7], collator_for(tiny_processor()))


def test_dummy_media_in_every_sample_counts():
    collator = collator_for(tiny_processor(), dummy_media="sample")
    assert token_counts([chat()], collator).tolist() == [len(collator.encode(chat()))]


def test_too_long_samples_are_reported():
    found = within_length([5, 900, 7, 513], 512)
    assert found.kept.tolist() == [0, 2]
    assert found.dropped.tolist() == [1, 3]
    assert repr(found).startswith("2 of 4 samples are longer than max_length=512 and dropped")


@pytest.mark.parametrize("bad", [0, -3, 1.5, True])
def test_a_bad_limit_is_refused(bad):
    with pytest.raises(ConfigError, match="max_length"):
        within_length([1], bad)
