"""Reading audio that is passed as arrays of samples.

Shapes: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmcollate.errors import MediaError
from vlmcollate.media.loading.tensors import array_of
from vlmcollate.plain_values import show

Samples = npt.NDArray[np.float32]

_MAX_AMPLITUDE = 8.0  # floats lie within [-1, 1], apart from a little overshoot
_MAX_RATE = 1_000_000  # in Hz; soxr hardly ends when it resamples from absurd rates
_KEYS = frozenset({"array", "sampling_rate", "channel_axis", "path"})


def samples_and_rate(source: object, *, where: str) -> tuple[Samples, int]:
    """Reads samples that come with their sampling rate.

    Args:
        source: `(array, rate)`, or a dict with `array`, `sampling_rate` and, for an array of two
            axes, `channel_axis`.
        where: The path inside the sample, for errors.

    Returns:
        (N, C) float32, and the rate in Hz.

    Raises:
        MediaError: If the rate is missing or wrong, or `scaled_samples` refuses the array.
    """
    array, rate, axis = _split(source, where)
    if rate is None:
        raise MediaError(
            "an audio array comes without its rate; add 'sampling_rate', in Hz", where=where
        )
    return scaled_samples(array, channel_axis=axis, where=where), whole_rate(rate, where)


def scaled_samples(array: object, *, channel_axis: int | None = None, where: str) -> Samples:
    """Scales an array of samples to float32.

    Args:
        array: (N,), or with `channel_axis` (C, N) or (N, C): floats in [-1, 1], or int16, int32 or
            uint8, which are scaled to that range; or a list of floats.
        channel_axis: The axis of the channels, 0 or 1, if there are two axes.
        where: The path inside the sample, for errors.

    Returns:
        (N, C) float32.

    Raises:
        MediaError: If the array has another dtype or layout, is a list of integers, is empty, or
            holds NaN, infinity or floats far outside [-1, 1].
    """
    samples = _as_array(array, where)
    if samples.ndim == 2 and channel_axis in (0, 1):
        samples = samples if channel_axis == 1 else samples.T
    elif samples.ndim != 1:
        raise MediaError(
            f"an audio array has shape {samples.shape}, expected (N,); declare the layout of two "
            'axes with {"array": ..., "sampling_rate": ..., "channel_axis": 0}, 0 for (channels, N)'
            " and 1 for (N, channels)",
            where=where,
        )
    else:
        samples = samples[:, None]
    if not samples.size:
        raise MediaError("the audio is empty; drop the sample", where=where)
    return scale(samples, where)


def scale(samples: npt.NDArray[Any], where: str, *, start: int = 0) -> Samples:
    """Scales samples to float32 in [-1, 1].

    Args:
        samples: (N, C), integers or floats.
        where: The path inside the sample, for errors.
        start: The index of the first sample in the whole audio, for errors.

    Returns:
        (N, C) float32.

    Raises:
        MediaError: If the dtype is another, or the floats are NaN, infinite or far outside [-1, 1].
    """
    if samples.dtype == np.int16:
        return (samples / 32768.0).astype(np.float32)
    if samples.dtype == np.int32:
        return (samples / 2147483648.0).astype(np.float32)
    if samples.dtype == np.uint8:
        return ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise MediaError(
            f"an audio array has dtype {samples.dtype}, expected float32 in [-1, 1], int16, int32 "
            "or uint8; convert it",
            where=where,
        )
    _check_amplitude(samples, where, start)
    return samples.astype(np.float32, copy=False)


def whole_rate(rate: Any, where: str) -> int:
    """Converts a sampling rate to an integer; refuses others with a MediaError."""
    is_number = isinstance(rate, int | float | np.number) and not isinstance(rate, bool)
    if not is_number or not 1 <= rate <= _MAX_RATE or rate != int(rate):
        raise MediaError(
            f"the sampling rate is {show(rate)}, expected a whole number of Hz such as 16000, at "
            f"most {_MAX_RATE}",
            where=where,
        )
    return int(rate)


def _split(source: object, where: str) -> tuple[Any, Any, Any]:
    """The array, the rate and the axis of the channels, the latter two `None` if missing."""
    if isinstance(source, Mapping):
        unknown = sorted(map(str, set(source) - _KEYS))
        if unknown:
            raise MediaError(f"an audio dict has unknown keys: {unknown}; remove them", where=where)
        return source["array"], source.get("sampling_rate"), source.get("channel_axis")
    if isinstance(source, Sequence) and len(source) == 2:
        array, rate = source
        return array, rate, None
    length = str(len(source)) if isinstance(source, Sequence) else "no"
    raise MediaError(
        f"an audio is a {type(source).__name__} of {length} items, expected (array, rate)",
        where=where,
    )


def _as_array(array: object, where: str) -> npt.NDArray[Any]:
    if isinstance(array, torch.Tensor):
        return array_of(array, "an audio", where)
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, list | tuple):
        return _of_list(array, where)
    raise MediaError(
        f"an audio array is {type(array).__name__}, expected an array of samples "
        "(the array comes before its rate)",
        where=where,
    )


def _of_list(samples: Sequence[Any], where: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(samples)
        array = array.astype(np.float32) if array.dtype.kind in "OUS" else array
    except (TypeError, ValueError, RuntimeError) as error:
        raise MediaError(f"an audio list is not a list of numbers ({error})", where=where) from None
    if array.dtype.kind in "iu" and isinstance(_first(samples), int):
        raise MediaError(
            "an audio list holds integers, which do not show their number of bits; pass "
            "np.asarray(samples, np.int16) if they have 16, or floats in [-1, 1]",
            where=where,
        )
    return array


def _first(samples: Any) -> object:
    while isinstance(samples, list | tuple):
        samples = samples[0]
    return samples


def _check_amplitude(samples: npt.NDArray[Any], where: str, start: int) -> None:
    highest = float(np.abs(samples).max())
    if not np.isfinite(highest):
        first = start + int(np.flatnonzero(~np.isfinite(samples).all(axis=1))[0])
        raise MediaError(
            f"the audio holds NaN or infinity, first at sample {first}; drop it, or replace them "
            "with numpy.nan_to_num",
            where=where,
        )
    if highest > _MAX_AMPLITUDE:
        raise MediaError(
            f"the audio's floats reach {highest:g}, expected [-1, 1]; divide 16-bit values by "
            "32768",
            where=where,
        )
