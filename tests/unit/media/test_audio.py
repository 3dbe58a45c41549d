"""Sounds become mono float32 at the model's rate, or are refused clearly."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch

from vlmcollate import LocalMedia, MediaError

RATE = 16000
TONE = (np.sin(np.arange(RATE) * 2 * np.pi * 440 / RATE) * 0.5).astype(np.float32)


def load(source, rate=RATE, **options):
    return LocalMedia(**options).load_audio(source, sampling_rate=rate, where="audios[0]")


def encoded(samples, rate=RATE, kind="WAV", **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **options)
    return file.getvalue()


def test_every_source_gives_the_same(tmp_path):
    data = encoded(TONE, subtype="FLOAT")
    path = tmp_path / "tone.wav"
    path.write_bytes(data)
    for source in (
        data,
        path,
        str(path),
        {"bytes": data},
        {"path": str(path)},
        (TONE, RATE),
        (torch.from_numpy(TONE), RATE),
        (TONE.tolist(), RATE),
        {"array": TONE.astype(np.float64), "sampling_rate": RATE},
        {"array": TONE, "sampling_rate": RATE, "path": None},
    ):
        found = load(source)
        assert found.dtype == np.float32 and found.flags.c_contiguous
        assert np.array_equal(found, TONE)


@pytest.mark.parametrize(("dtype", "scale"), [(np.int16, 32768), (np.int32, 2147483648)])
def test_integers_are_scaled(dtype, scale):
    samples = (TONE.astype(np.float64) * scale).astype(dtype)
    np.testing.assert_allclose(load((samples, RATE)), TONE, atol=2 / 32768)


def test_channels_are_averaged():
    stereo = np.stack([TONE, np.zeros_like(TONE)])
    for source in (
        encoded(stereo.T, subtype="FLOAT"),
        {"array": stereo, "sampling_rate": RATE, "channel_axis": 0},
        {"array": stereo.T, "sampling_rate": RATE, "channel_axis": 1},
    ):
        np.testing.assert_allclose(load(source), TONE / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [44100, 8000])
def test_resampling_keeps_pitch_and_loudness(rate):
    there = (np.sin(np.arange(2 * rate) * 2 * np.pi * 440 / rate) * 0.5).astype(np.float32)
    found = load((there, rate))
    assert len(found) == 2 * RATE
    spectrum = np.abs(np.fft.rfft(found)) / len(found) * 2
    assert spectrum.argmax() / 2 == 440  # two seconds: half a hertz a bin
    assert spectrum.max() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (TONE, "without a rate"),
        ({"array": TONE, "sampling_rate": None}, "without its rate"),
        ((RATE, TONE), "comes before its rate"),
        ((TONE, TONE), "sampling rate"),
        ((TONE, 0), "sampling rate"),
        ((TONE, 10**400), "sampling rate is an integer of 1329 bits"),
        ((TONE, 1e300), "sampling rate"),  # soxr would not end
        ((TONE, 16000.5), "sampling rate"),
        ((np.stack([TONE, TONE]), RATE), "state the layout"),
        ((TONE[:0], RATE), "empty"),
        ((np.array([0.1, np.nan, 0.2], np.float32), RATE), "first at sample 1"),
        ((np.array([0.1, np.inf], np.float32), RATE), "infinity"),
        ((TONE * 20000, RATE), "divide 16-bit values"),
        ((np.zeros(9, bool), RATE), "dtype bool"),
        ((["a"], RATE), "no list of numbers"),
        (b"<html>404</html>" * 9, "cannot be decoded"),
        (b"", "cannot be decoded"),
        (encoded(TONE[:0]), "empty"),
        (7, "audio is int"),
        ("/nowhere/a.wav", "no file at"),
        ({"array": TONE, "sampling_rate": RATE, "loud": 1}, "nothing would read"),
    ],
)
def test_what_is_refused(source, says):
    with pytest.raises(MediaError, match=says) as raised:
        load(source)
    assert raised.value.where == "audios[0]"


def test_length_is_limited():
    for source in (encoded(TONE), (TONE, RATE)):
        with pytest.raises(MediaError, match=r"max_audio_seconds=0\.5"):
            load(source, max_audio_seconds=0.5)


def test_the_rate_of_bare_arrays_can_be_stated():
    assert len(load(TONE, rate=8000, array_sampling_rate=RATE)) == RATE // 2
