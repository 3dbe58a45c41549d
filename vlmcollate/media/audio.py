"""Turning sounds into what models hear: mono float32 at the model's rate.

Shapes: N samples, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.plain_values import show

Samples = npt.NDArray[np.float32]

_INSTALL = "run pip install 'vlmcollate[audio]'"
_HIGHEST_RATE = 10_000_000  # Hz; resampling from 1e300 does not end
_LOUDEST = 8.0  # float samples lie within [-1, 1] but for a little overshoot


def decode_audio(data: bytes, name: str, *, max_seconds: float, where: str) -> tuple[Samples, int]:
    """Decodes an encoded sound.

    Args:
        data: The encoded sound, in any format that libsndfile reads.
        name: What to call it in errors.
        max_seconds: The longest sound, checked before decoding.
        where: The place in the sample, for errors.

    Returns:
        (N, C) float32 in [-1, 1], and the rate.

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
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_seconds(file.frames, file.samplerate, name, max_seconds, where)
            samples = file.read(dtype="float32", always_2d=True)
            stated, rate = file.frames, file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise MediaError(
            f"{name} cannot be decoded ({error}); expected a whole sound file such as WAV, FLAC, "
            "MP3 or Ogg; fetch or encode it again, or drop the sample",
            where=where,
        ) from error
    if len(samples) < stated:
        raise MediaError(
            f"{name} breaks off after {len(samples)} of {stated} samples; fetch or encode it again",
            where=where,
        )
    return from_samples(samples, channel_axis=1, where=where), int(rate)


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
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    if rate != target:
        try:
            import soxr
        except ImportError as error:
            raise ConfigError(
                f"sounds are resampled by soxr, which is not installed; {_INSTALL}"
            ) from error
        mono = soxr.resample(mono, rate, target)
        if not len(mono):
            raise MediaError(
                f"the sound is too short to resample from {rate} to {target}", where=where
            )
    return np.ascontiguousarray(mono, dtype=np.float32)


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


def _scaled(samples: npt.NDArray[Any], where: str) -> Samples:
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
        first = int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
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
            f"the sampling rate is {show(rate)}, expected samples a second such as 16000",
            where=where,
        )
    return int(rate)


def _check_seconds(frames: int, rate: int, name: str, most: float, where: str) -> None:
    if frames > most * rate:
        raise MediaError(
            f"{name} lasts {frames / rate:.1f} s, longer than max_audio_seconds={most}; cut it, or "
            "raise max_audio_seconds",
            where=where,
        )
    if frames < 1:
        raise MediaError(f"{name} is empty; drop the sample", where=where)


def _length(source: object) -> str:
    return str(len(source)) if isinstance(source, Sequence) else "no"
