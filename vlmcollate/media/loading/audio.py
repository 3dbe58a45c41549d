"""Decoding encoded audio files.

Shapes: N samples, C channels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.audio_arrays import Samples, whole_rate
from vlmcollate.media.loading.audio_containers import sample_bytes
from vlmcollate.media.loading.audio_limits import AudioLimits
from vlmcollate.media.loading.resampling import INSTALL_AUDIO, mono_from_blocks

_BLOCK_LENGTH = 1 << 16  # samples that are decoded at a time


def decode_audio(
    data: bytes, name: str, *, target: int, limits: AudioLimits, where: str
) -> Samples:
    """Decodes an encoded audio file as mono.

    Args:
        data: The encoded audio, in any format that libsndfile reads.
        name: The audio's name in errors.
        target: The wanted sampling rate in Hz.
        limits: The limits of the audio, checked before decoding.
        where: The path inside the sample, for errors.

    Returns:
        (N,) float32 in [-1, 1], at the target rate.

    Raises:
        MediaError: If the audio is broken, truncated, empty or too long.
        ConfigError: If soundfile, or soxr if it is needed, is not installed.
    """
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(_File(data)) as file:
            declared, rate = file.frames, whole_rate(file.samplerate, where)
            if declared < 1:
                raise MediaError(f"{name} is empty; drop the sample", where=where)
            limits.check(declared, file.channels, rate, name, where)
            _check_whole(data, declared, name, where)
            blocks = ((block, rate) for block in _blocks(file))
            mono = mono_from_blocks(blocks, name, target=target, limits=limits, where=where)
            decoded = file.tell()
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise MediaError(
            f"{name} cannot be decoded ({error}); expected a whole audio file such as WAV, FLAC, "
            "MP3 or Ogg; fetch or encode it again, or drop the sample",
            where=where,
        ) from error
    if mono is None or decoded < declared:
        raise MediaError(
            f"{name} is truncated: found {decoded} samples, but its header declares {declared}; "
            "fetch or encode it again, or drop the sample",
            where=where,
        )
    return mono


def _check_whole(data: bytes, samples: int, name: str, where: str) -> None:
    """Refuses what libsndfile reads as a shorter file, with a MediaError."""
    held = sample_bytes(data)
    if held is not None and held.lacks_samples(samples):
        raise MediaError(
            f"{name} is truncated: its header declares {held.declared} bytes of samples, found "
            f"{held.found}; fetch or encode it again, or drop the sample",
            where=where,
        )


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise ConfigError(
            f"audio is decoded by soundfile, which is not installed; {INSTALL_AUDIO}"
        ) from error
    return soundfile


class _File(io.BytesIO):
    """Bytes in which a damaged header may seek anywhere.

    soundfile prints what `seek` raises, so it raises nothing.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Seeks, or keeps the position if there is no such offset."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


def _blocks(file: Any) -> Iterator[Samples]:
    """Blocks of shape (N, C) of an open audio file."""
    while len(block := file.read(_BLOCK_LENGTH, dtype="float32", always_2d=True)):
        yield block
