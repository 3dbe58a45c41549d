"""Audio becomes mono float32 at the model's sampling rate, or is refused clearly."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr
import torch

from tests.media_bytes import damaged
from vlmcollate import LocalMedia
from vlmcollate.errors import MediaError

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


def test_a_list_of_integers_is_refused():
    quiet = np.array([0, 3, -5, 7, -2] * 320, np.int16)
    for samples in (quiet.tolist(), tuple(quiet.tolist()), [0, 0], [1 << 40, 0]):
        with pytest.raises(MediaError, match=r"holds integers, .* np\.asarray\(samples, np\.int16"):
            load((samples, RATE))
    channels = {"array": [quiet.tolist()] * 2, "sampling_rate": RATE, "channel_axis": 0}
    with pytest.raises(MediaError, match="holds integers"):
        load(channels)
    # numbers of NumPy show their width, and floats are floats
    assert np.array_equal(load((list(quiet), RATE)), load((quiet, RATE)))
    assert load(([0, 0.5, -1], RATE)).tolist() == [0.0, 0.5, -1.0]


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
    ("source", "problem"),
    [
        (TONE, "without a rate"),
        ({"array": TONE, "sampling_rate": None}, "without its rate"),
        ((RATE, TONE), "comes before its rate"),
        ((TONE, TONE), "sampling rate"),
        ((TONE, 0), "sampling rate"),
        ((TONE, 10**400), "sampling rate is an integer of 1329 bits"),
        ((TONE, 1e300), "sampling rate"),  # soxr would not return
        ((TONE, 16000.5), "sampling rate"),
        ((np.stack([TONE, TONE]), RATE), "declare the layout"),
        ((TONE[:0], RATE), "empty"),
        ((np.array([0.1, np.nan, 0.2], np.float32), RATE), "first at sample 1"),
        ((np.array([0.1, np.inf], np.float32), RATE), "infinity"),
        ((TONE * 20000, RATE), "divide 16-bit values"),
        ((np.zeros(9, bool), RATE), "dtype bool"),
        ((["a"], RATE), "not a list of numbers"),
        (b"<html>404</html>" * 9, "cannot be decoded"),
        (b"", "cannot be decoded"),
        (encoded(TONE[:0]), "empty"),
        (7, "audio is int"),
        ("/nowhere/a.wav", "no file at"),
        ({"array": TONE, "sampling_rate": RATE, "loud": 1}, "unknown keys"),
    ],
)
def test_wrong_audio_is_refused(source, problem):
    with pytest.raises(MediaError, match=problem) as raised:
        load(source)
    assert raised.value.where == "audios[0]"


def test_length_is_limited():
    for source in (encoded(TONE), (TONE, RATE)):
        with pytest.raises(MediaError, match=r"max_audio_seconds=0\.5"):
            load(source, max_audio_seconds=0.5)


def test_the_rate_of_bare_arrays_is_an_option():
    assert len(load(TONE, rate=8000, array_sampling_rate=RATE)) == RATE // 2


@pytest.mark.parametrize("rate", [44100, 16000])
@pytest.mark.parametrize("channels", [1, 2])
def test_decoding_in_blocks_equals_decoding_at_once(rate, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (200_000, channels)).astype(np.float32)
    mono = samples.mean(axis=1, dtype=np.float32)
    expected = mono if rate == RATE else soxr.resample(mono, rate, RATE)
    assert np.array_equal(load(encoded(samples, rate, subtype="FLOAT")), expected)


def test_channels_are_limited_by_their_decoded_size():
    silence = encoded(np.zeros((20_000, 8), np.int16), kind="FLAC")
    assert len(silence) < 10_000
    assert load(silence, max_decoded_audio_bytes=640_000).shape == (20_000,)
    with pytest.raises(MediaError, match=r"8 channels at 16000 Hz.*max_decoded_audio_bytes=639999"):
        load(silence, max_decoded_audio_bytes=639_999)


@pytest.mark.parametrize("rate", [0, -1, 1_000_001, 1e20, float("inf"), float("nan"), 0.5])
def test_absurd_sampling_rates_are_refused(rate):
    with pytest.raises(MediaError, match="sampling rate"):
        load((TONE, rate))


@pytest.mark.parametrize("rate", [0, 4_000_000_000])
def test_absurd_sampling_rates_of_files_are_refused(rate):
    data = encoded(TONE)
    assert data[24:28] == RATE.to_bytes(4, "little")
    with pytest.raises(MediaError, match=r"sampling rate|cannot be decoded"):
        load(data[:24] + rate.to_bytes(4, "little") + data[28:])


def test_an_error_names_the_sample_that_is_nan():
    samples = np.zeros(150_000, np.float32)
    samples[140_000] = np.nan
    with pytest.raises(MediaError, match="first at sample 140000"):
        load(encoded(samples, subtype="FLOAT"))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_damaged_audio_raises_only_media_errors(kind, capfd):
    random = np.random.default_rng(0)
    data = encoded(TONE, kind=kind)
    for _ in range(40):
        try:
            found = load(damaged(data, random), rate=8000)
        except MediaError as error:
            assert error.where == "audios[0]"
        else:
            assert len(found) and np.isfinite(found).all()
    assert "Traceback" not in capfd.readouterr().err
