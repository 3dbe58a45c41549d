"""Converting audio to mono at the model's sampling rate.

Shapes: N samples, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.audio_arrays import Samples, scale, whole_rate
from vlmcollate.media.loading.audio_limits import AudioLimits

INSTALL_AUDIO = "run pip install 'vlmcollate[audio]'"
"""How to install what decodes and resamples audio."""


def mono_from_blocks(
    blocks: Iterable[tuple[npt.NDArray[np.float32], int]],
    name: str,
    *,
    target: int,
    limits: AudioLimits,
    where: str,
) -> Samples | None:
    """Averages the channels and resamples, block by block, within limits.

    Args:
        blocks: Float samples of shape (N, C), each block with its sampling rate in Hz.
        name: The audio's name in errors.
        target: The wanted sampling rate in Hz.
        limits: The limits of the audio.
        where: The path inside the sample, for errors.

    Returns:
        (N,) float32, contiguous, the same as from a single block; `None` if there is no block.

    Raises:
        MediaError: If the audio is too long, changes its layout midway, or holds NaN.
        ConfigError: If soxr is needed and not installed.
    """
    pieces: list[Samples] = []
    resampler, layout, number = None, None, 0
    for samples, found in blocks:
        channels, rate = samples.shape[1], whole_rate(found, where)
        if layout is None:
            resampler = None if rate == target else _soxr().ResampleStream(rate, target, 1)
        elif layout != (channels, rate):
            raise MediaError(
                f"{name} changes from {layout[0]} channels at {layout[1]} Hz to {channels} at "
                f"{rate} Hz; encode it again",
                where=where,
            )
        layout = channels, rate
        mono = _mono(scale(samples, where, start=number))
        number += len(samples)
        limits.check(number, channels, rate, name, where)
        pieces.append(mono if resampler is None else resampler.resample_chunk(mono))
    if layout is None:
        return None
    if resampler is not None:
        pieces.append(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    return _not_empty(np.concatenate(pieces), layout[1], target, where)


def mono_from_samples(samples: Samples, rate: int, target: int, *, where: str) -> Samples:
    """Averages the channels, and resamples to another rate.

    Args:
        samples: (N, C) float32.
        rate: Their sampling rate in Hz.
        target: The wanted sampling rate in Hz.
        where: The path inside the sample, for errors.

    Returns:
        (M,) float32, contiguous, of the same length in seconds.

    Raises:
        MediaError: If the audio is too short to resample.
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
        raise MediaError(
            f"the audio is too short to resample from {rate} to {target} Hz; drop the sample",
            where=where,
        )
    return mono


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise ConfigError(
            f"audio is resampled by soxr, which is not installed; {INSTALL_AUDIO}"
        ) from error
    return soxr
