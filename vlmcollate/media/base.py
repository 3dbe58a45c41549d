"""What a media strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.videos import FrameSampling, Video


class MediaStrategy(ABC):
    """How one sample's media is loaded, and which dtype its tensors get.

    A strategy is a value: frozen and picklable, so that DataLoader workers can share it. It never
    edits what it is given.

    A strategy of your own raises `MediaError` for bad media, or lists in `media_errors` the
    exceptions that mean bad media; anything else but a `MemoryError` becomes a `StrategyError`.
    """

    media_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The exceptions that mean bad media, such as `(KeyError,)` for names in a zip archive."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses `media_errors` that are no exceptions, or that would hide every bug."""
        super().__init_subclass__(**options)
        declared = cls.media_errors
        if not isinstance(declared, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception
            for kind in declared
        ):
            raise ConfigError(
                f"{cls.__name__}.media_errors is wrong: found {declared!r}, expected a tuple of "
                "subclasses of Exception; name those that mean bad media"
            )

    @abstractmethod
    def load_image(self, source: object, *, where: str) -> Image.Image:
        """Loads one image as plain upright RGB.

        Args:
            source: The image as the user gave it.
            where: The path inside the sample, such as `messages[0].content[1]`, for errors.

        Returns:
            A decoded image of mode RGB, without transparency or pending EXIF orientation. It may
            be the object that was passed, so it is only to be read.

        Raises:
            MediaError: If the image is missing, broken, refused or too large.
        """

    def load_video(
        self,
        source: object,
        *,
        sampling: FrameSampling,
        sampling_rate: int | None = None,
        where: str,
    ) -> Video:
        """Loads one video's frames.

        Args:
            source: The video as the user gave it.
            sampling: Which frames the model wants.
            sampling_rate: Where given, the video's sound is loaded too, at this rate.
            where: The path inside the sample, for errors.

        Returns:
            The frames with their true times.

        Raises:
            MediaError: If the video is missing, broken, refused or too large; always, unless a
                strategy overrides this.
        """
        raise MediaError(f"{type(self).__name__} loads no videos", where=where)

    def load_audio(
        self, source: object, *, sampling_rate: int, where: str
    ) -> npt.NDArray[np.float32]:
        """Loads one sound.

        Args:
            source: The sound as the user gave it.
            sampling_rate: The rate that the model hears in, in samples a second.
            where: The path inside the sample, for errors.

        Returns:
            (N,) float32, mono, at `sampling_rate`.

        Raises:
            MediaError: If the sound is missing, broken, refused or too long; always, unless a
                strategy overrides this.
        """
        raise MediaError(f"{type(self).__name__} loads no audio", where=where)

    def image_size(self, source: object, *, where: str) -> tuple[int, int] | None:
        """The height and width of what `load_image` gives, without decoding it.

        Args:
            source: The image as the user gave it.
            where: The path inside the sample, for errors.

        Returns:
            The size, or `None` where only loading tells; always, unless a strategy overrides this.
        """
        del source, where
        return None  # as declared

    def probe_video(self, source: object, *, sampling: FrameSampling, where: str) -> Video | None:
        """What `load_video` gives, with black frames, without decoding them.

        Args:
            source: The video as the user gave it.
            sampling: Which frames the model wants.
            where: The path inside the sample, for errors.

        Returns:
            The video without its pixels and its sound, or `None` where only loading tells; always,
            unless a strategy overrides this.
        """
        del source, sampling, where
        return None  # as declared

    @abstractmethod
    def cast(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Brings one media tensor to the dtype that the model wants.

        Args:
            key: The tensor's name in the batch, such as `pixel_values`.
            value: The tensor, of any shape.

        Returns:
            The tensor of the same shape; integer and bool tensors come back as they are.
        """
