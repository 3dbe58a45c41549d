"""Turning sounds into what models hear: mono float32 at the model's rate.

Shapes: N samples, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.plain_values import show

Samples = npt.NDArray[np.float32]

_INSTALL = "run pip install 'vlmcollate[audio]'"
_LOUDEST = 8.0  # float samples lie within [-1, 1] but for a little overshoot
_HIGHEST_RATE = 1_000_000  # Hz; soxr takes for ever to resample from absurd ones
_AT_A_TIME = 1 << 16


@attrs.frozen(kw_only=True)
class AudioLimits:
    """What an audio may not exceed.

    Args:
        max_seconds: Its length.
        max_bytes: Bytes of its decoded samples in all channels, as float32.
    """

    max_seconds: float
    max_bytes: int

    def check(self, samples: int, channels: int, rate: int, name: str, where: str) -> None:
        """Refuses so many samples a channel, with a MediaError."""
        self.check_seconds(samples / rate, name, where)
        if samples * channels * 4 > self.max_bytes:
            raise MediaError(
                f"{name} has {channels} channels at {rate} Hz, which decode to more than "
                f"max_decoded_audio_bytes={self.max_bytes}; mix it down to fewer channels or a "
                "lower sampling rate, cut it, or raise max_decoded_audio_bytes",
                where=where,
            )

    def check_seconds(self, seconds: float, name: str, where: str) -> None:
        """Refuses such a length, with a MediaError."""
        if seconds > self.max_seconds:
            raise MediaError(
                f"{name} lasts {seconds:.1f} s, longer than max_audio_seconds="
                f"{self.max_seconds}; cut it, or raise max_audio_seconds",
                where=where,
            )


def decode_audio(
    data: bytes, name: str, *, target: int, limits: AudioLimits, where: str
) -> Samples:
    """Decodes an encoded audio file as mono.

    Args:
        data: The encoded audio, in any format that libsndfile reads.
        name: What to call it in errors.
        target: The sampling rate that is wanted.
        limits: What the audio may not exceed, checked before decoding.
        where: The place in the sample, for errors.

    Returns:
        (N,) float32 in [-1, 1], at the target rate.

    Raises:
        MediaError: If it is broken, empty or too long.
        ConfigError: If soundfile is not installed.
    """
    try:
        import soundfile
    except ImportError as error:
        raise ConfigError(
            f"sounds are decoded by soundfile, which is not installed; {_INSTALL}"
        ) from error
    try:
        with soundfile.SoundFile(_File(data)) as file:
            stated, rate = file.frames, _whole_rate(file.samplerate, where)
            if stated < 1:
                raise MediaError(f"{name} is empty; drop the sample", where=where)
            limits.check(stated, file.channels, rate, name, where)
            blocks = ((block, rate) for block in _blocks(file))
            mono = mono_of_blocks(blocks, name, target=target, limits=limits, where=where)
            read = file.tell()
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise MediaError(
            f"{name} cannot be decoded ({error}); expected a whole sound file such as WAV, FLAC, "
            "MP3 or Ogg; fetch or encode it again, or drop the sample",
            where=where,
        ) from error
    if mono is None or read < stated:
        raise MediaError(
            f"{name} breaks off after {read} of {stated} samples; fetch or encode it again",
            where=where,
        )
    return mono


def mono_of_blocks(
    blocks: Iterable[tuple[npt.NDArray[np.float32], int]],
    name: str,
    *,
    target: int,
    limits: AudioLimits,
    where: str,
) -> Samples | None:
    """Averages the channels and resamples, block by block, within limits.

    Args:
        blocks: (N, C) float samples, with their sampling rates.
        name: What to call the audio in errors.
        target: The sampling rate that is wanted.
        limits: What the audio may not exceed.
        where: The place in the sample, for errors.

    Returns:
        (N,) float32, contiguous, the same as of one block; `None` if there is no block.

    Raises:
        MediaError: If the audio is too long, changes in the middle, or holds NaN.
        ConfigError: If soxr is needed and not installed.
    """
    pieces: list[Samples] = []
    resampler, layout, number = None, None, 0
    for samples, found in blocks:
        channels, rate = samples.shape[1], _whole_rate(found, where)
        if layout is None:
            resampler = None if rate == target else _soxr().ResampleStream(rate, target, 1)
        elif layout != (channels, rate):
            raise MediaError(
                f"{name} changes from {layout[0]} channels at {layout[1]} Hz to {channels} at "
                f"{rate} Hz; encode it again",
                where=where,
            )
        layout = channels, rate
        mono = _mono(_scaled(samples, where, start=number))
        number += len(samples)
        limits.check(number, channels, rate, name, where)
        pieces.append(mono if resampler is None else resampler.resample_chunk(mono))
    if layout is None:
        return None
    if resampler is not None:
        pieces.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    return _not_empty(np.concatenate(pieces), layout[1], target, where)


def stated_samples(source: object, *, where: str) -> tuple[Samples, int]:
    """Reads samples that come with their rate.

    Args:
        source: `(array, rate)`, or a dict with `array`, `sampling_rate` and, for an array of two
            axes, `channel_axis`.
        where: The place in the sample, for errors.

    Returns:
        (N, C) float32, and the rate.

    Raises:
        MediaError: If there is no rate, or `from_samples` refuses the array.
    """
    if isinstance(source, Mapping):
        array, rate = source["array"], source.get("sampling_rate")
        axis = source.get("channel_axis")
        extra = sorted(map(str, set(source) - {"array", "sampling_rate", "channel_axis", "path"}))
        if extra:
            raise MediaError(
                f"an audio dict has keys that nothing would read: {extra}", where=where
            )
    elif isinstance(source, Sequence) and len(source) == 2:
        (array, rate), axis = source, None
    else:
        raise MediaError(
            f"an audio is a {type(source).__name__} of {_length(source)} items, expected "
            "(array, rate)",
            where=where,
        )
    if rate is None:
        raise MediaError(
            "an audio array without its rate; add 'sampling_rate', in samples a second",
            where=where,
        )
    return from_samples(array, channel_axis=axis, where=where), _whole_rate(rate, where)


def from_samples(array: object, *, channel_axis: int | None = None, where: str) -> Samples:
    """Scales samples to float32.

    Args:
        array: (N,), or with `channel_axis` (C, N) or (N, C): floats in [-1, 1], or int16, int32 or
            uint8, which are scaled to it.
        channel_axis: Which axis of two is the channels, 0 or 1.
        where: The place in the sample, for errors.

    Returns:
        (N, C) float32.

    Raises:
        MediaError: If the dtype or the layout is not one of these, if it is empty, or holds NaN,
            infinity or floats far outside [-1, 1].
    """
    samples = _as_array(array, where)
    if samples.ndim == 2 and channel_axis in (0, 1):
        samples = samples if channel_axis == 1 else samples.T
    elif samples.ndim != 1:
        raise MediaError(
            f"an audio array has shape {samples.shape}, expected (N,); state the layout of two "
            'axes with {"array": ..., "sampling_rate": ..., "channel_axis": 0}, 0 for (channels, N)'
            " and 1 for (N, channels)",
            where=where,
        )
    else:
        samples = samples[:, None]
    if not samples.size:
        raise MediaError("the sound is empty; drop the sample", where=where)
    return _scaled(samples, where)


def mono_at(samples: Samples, rate: int, target: int, *, where: str) -> Samples:
    """Averages the channels, and resamples to another rate.

    Args:
        samples: (N, C) float32.
        rate: Their rate.
        target: The rate that is wanted.
        where: The place in the sample, for errors.

    Returns:
        (M,) float32, contiguous, of the same length in seconds.

    Raises:
        ConfigError: If soxr is needed and not installed.
    """
    mono = _mono(samples)
    if rate != target:
        mono = _soxr().resample(mono, rate, target)
    return _not_empty(np.ascontiguousarray(mono, dtype=np.float32), rate, target, where)


def _mono(samples: Samples) -> Samples:
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


def _not_empty(mono: Samples, rate: int, target: int, where: str) -> Samples:
    if not len(mono):
        raise MediaError(f"the sound is too short to resample from {rate} to {target}", where=where)
    return mono


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise ConfigError(
            f"sounds are resampled by soxr, which is not installed; {_INSTALL}"
        ) from error
    return soxr


class _File(io.BytesIO):
    """Bytes in which a damaged header may seek anywhere; soundfile prints what is raised here."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Seeks, or stays where it is."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _blocks(file: Any) -> Iterator[Samples]:
    """Blocks of (N, C) samples of an open sound file."""
    while len(block := file.read(_AT_A_TIME, dtype="float32", always_2d=True)):
        yield block


def _as_array(array: object, where: str) -> npt.NDArray[Any]:
    if isinstance(array, torch.Tensor):
        return array.detach().cpu().numpy()
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, list | tuple):
        try:
            return np.asarray(array, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise MediaError(
                f"an audio list is no list of numbers ({error})", where=where
            ) from None
    raise MediaError(
        f"an audio array is {type(array).__name__}, expected an array of samples "
        "(the array comes before its rate)",
        where=where,
    )


def _scaled(samples: npt.NDArray[Any], where: str, *, start: int = 0) -> Samples:
    if samples.dtype == np.int16:
        return (samples / 32768.0).astype(np.float32)
    if samples.dtype == np.int32:
        return (samples / 2147483648.0).astype(np.float32)
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise MediaError(
            f"an audio array has dtype {samples.dtype}, expected float32 in [-1, 1], int16, int32 "
            "or uint8",
            where=where,
        )
    loudest = float(np.abs(samples).max())
    if not np.isfinite(loudest):
        first = start + int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise MediaError(
            f"the sound holds NaN or infinity, first at sample {first}; drop it, or mend it with "
            "numpy.nan_to_num",
            where=where,
        )
    if loudest > _LOUDEST:
        raise MediaError(
            f"the sound's floats reach {loudest:g}, expected [-1, 1]; divide 16-bit values by "
            "32768",
            where=where,
        )
    return samples.astype(np.float32, copy=False)


def _whole_rate(rate: Any, where: str) -> int:
    number = isinstance(rate, int | float | np.number) and not isinstance(rate, bool)
    if not number or not 1 <= rate <= _HIGHEST_RATE or rate != int(rate):
        raise MediaError(
            f"the sampling rate is {show(rate)}, expected samples a second such as 16000, at most "
            f"{_HIGHEST_RATE}",
            where=where,
        )
    return int(rate)


def _length(source: object) -> str:
    return str(len(source)) if isinstance(source, Sequence) else "no"
