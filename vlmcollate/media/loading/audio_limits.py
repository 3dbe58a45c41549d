"""The limits within which audio is decoded."""

from __future__ import annotations

import attrs

from vlmcollate.errors import MediaError


@attrs.frozen(kw_only=True)
class AudioLimits:
    """The limits of one audio.

    Args:
        max_seconds: The maximum length in seconds.
        max_bytes: The maximum number of bytes of the decoded samples, 4 for each sample of each
            channel.
    """

    max_seconds: float
    max_bytes: int

    def check(self, samples: int, channels: int, rate: int, name: str, where: str) -> None:
        """Refuses audio above the limits.

        Args:
            samples: The number of samples of one channel.
            channels: The number of channels.
            rate: The sampling rate in Hz.
            name: The audio's name in errors.
            where: The path inside the sample, for errors.

        Raises:
            MediaError: If the audio is too long or decodes to too many bytes.
        """
        self.check_seconds(samples / rate, name, where)
        if samples * channels * 4 > self.max_bytes:
            raise MediaError(
                f"{name} has {channels} channels at {rate} Hz, which decode to more than "
                f"max_decoded_audio_bytes={self.max_bytes}; mix it down to fewer channels or a "
                "lower sampling rate, cut it, or raise max_decoded_audio_bytes",
                where=where,
            )

    def check_seconds(self, seconds: float, name: str, where: str) -> None:
        """Refuses audio that lasts too long, with a MediaError."""
        if seconds > self.max_seconds:
            raise MediaError(
                f"{name} lasts {seconds:.1f} s, longer than max_audio_seconds="
                f"{self.max_seconds}; cut it, or raise max_audio_seconds",
                where=where,
            )
