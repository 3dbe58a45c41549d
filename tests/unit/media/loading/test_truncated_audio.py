"""A file of uncompressed audio that was cut is refused, and the header of a stream is not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from vlmcollate import LocalMedia
from vlmcollate.errors import MediaError
from vlmcollate.media.loading.audio_containers import sample_bytes

RATE = 16000
TONE = (np.sin(np.arange(RATE) / 9) * 0.5).astype(np.float32)
KINDS = ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "SVX", "NIST"]


def load(data):
    return LocalMedia().load_audio(data, sampling_rate=RATE, where="audios[0]")


def encoded(kind="WAV", samples=TONE, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind, **options)
    return file.getvalue()


def with_size(data, name, size, order="little", length=4):
    """Replaces the size after a chunk's name."""
    at = data.index(name) + len(name)
    return data[:at] + size.to_bytes(length, order) + data[at + length :]


def is_truncated(data):
    with pytest.raises(MediaError, match=r"is truncated: its header declares \d+ bytes of samples"):
        load(data)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [(kind, channels) for kind in KINDS for channels in (1, 2) if (kind, channels) != ("SVX", 2)],
)
def test_a_cut_file_is_truncated(kind, channels):
    whole = encoded(kind, np.stack([TONE] * channels, 1))
    assert len(load(whole)) == RATE
    for cut in (2 * channels, 2 * channels + 1, len(whole) // 2, len(whole) // 2 + 1):
        is_truncated(whole[:-cut])


@pytest.mark.parametrize(
    ("kind", "subtype", "endian"),
    [
        ("WAV", "PCM_U8", "FILE"),
        ("WAV", "PCM_24", "BIG"),
        ("WAV", "DOUBLE", "FILE"),
        ("WAV", "ULAW", "FILE"),
        ("WAV", "IMA_ADPCM", "FILE"),
        ("WAV", "MS_ADPCM", "FILE"),
        ("NIST", "ULAW", "FILE"),
        ("AIFF", "FLOAT", "FILE"),
        ("AIFF", "PCM_16", "LITTLE"),
        ("AU", "ALAW", "LITTLE"),
        ("CAF", "PCM_24", "FILE"),
    ],
)
def test_other_encodings_are_whole_or_truncated(kind, subtype, endian):
    whole = encoded(kind, TONE[:7777], subtype=subtype, endian=endian)
    assert len(load(whole)) >= 7777
    with pytest.raises(MediaError):
        load(whole[: len(whole) * 2 // 3])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFDB, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF, 0x7FFFF024])
def test_the_header_of_a_streamed_wav_is_legal(size, riff):
    data = with_size(with_size(encoded(), b"data", size), b"RIFF", riff)
    assert len(load(data)) == RATE


@pytest.mark.parametrize(
    ("kind", "name", "size", "order", "length"),
    [
        ("AU", b".snd\0\0\0\x18", 0xFFFFFFFF, "big", 4),
        ("AIFF", b"SSND", 0x7F000008, "big", 4),
        ("RF64", b"ds64\x1c\0\0\0" + (32096).to_bytes(8, "little"), (1 << 64) - 1, "little", 8),
        ("CAF", b"data", (1 << 64) - 1, "big", 8),
    ],
)
def test_the_headers_of_other_streams_are_legal(kind, name, size, order, length):
    data = with_size(encoded(kind), name, size, order, length)
    assert sample_bytes(data) is None
    if kind not in ("RF64", "CAF"):  # libsndfile itself refuses some
        assert len(load(data)) == RATE


def test_a_size_that_was_never_written_is_legal():
    data = with_size(with_size(encoded(), b"data", 0), b"RIFF", 8)
    assert len(load(data)) == RATE


def test_odd_sizes_and_further_chunks_are_whole():
    odd = encoded(samples=TONE[:101], subtype="PCM_U8")
    tail = b"LIST\x04\0\0\0INFO"
    for data in (odd[: odd.index(b"data") + 8 + 101], odd, odd + tail, encoded() + tail * 9):
        assert len(load(data)) in (101, RATE)
    # a chunk of odd size before the samples
    at = odd.index(b"data")
    assert len(load(odd[:at] + b"junk\x03\0\0\0abc\0" + odd[at:])) == 101
    is_truncated(odd[:at] + b"junk\x03\0\0\0abc\0" + odd[at : at + 60])


def test_a_size_that_rounds_up_to_no_sample_is_whole():
    data = encoded()
    assert len(load(with_size(data, b"data", 2 * RATE + 1))) == RATE
    is_truncated(with_size(data, b"data", 2 * RATE + 2))


def test_other_formats_declare_no_bytes():
    for data in (encoded("FLAC"), encoded("OGG"), b"", b"RIFF", encoded()[:40], b"FORM" * 4):
        assert sample_bytes(data) is None
