"""The base class of media strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.loading.sampling import FrameSampling
from vlmcollate.media.loading.videos import Video
from vlmcollate.validators import WithOptions


@attrs.frozen(kw_only=True)
class MediaStrategy(WithOptions, ABC):
    """Loads the media of one sample.

    A strategy is a value: frozen and picklable, so that DataLoader workers can share it. It never
    edits a source.

    A subclass overrides `load_image`, and `load_video` and `load_audio` if it loads them. If it can
    find out sizes and times without decoding, it overrides `image_size` and `probe_video`, too. For
    bad media it raises `MediaError`, or one of the exceptions that it declares in `media_errors`;
    any other exception but a `MemoryError` becomes a `StrategyError`. A subclass that adds options
    is decorated with `@attrs.frozen(kw_only=True)`; one that adds none needs no decorator.

    Example:
        >>> class Thumbnails(MediaStrategy):
        ...     media_errors = (KeyError,)
        ...     def load_image(self, source, *, where):
        ...         return {"red": Image.new("RGB", (8, 8), "red")}[source]
        >>> Thumbnails().load_image("red", where="images[0]").size
        (8, 8)
    """

    media_errors: ClassVar[tuple[type[Exception], ...]] = ()
    """The exceptions that mean bad media, such as `(KeyError,)` for names in a zip archive."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuses `media_errors` that are not exceptions, or that would hide every bug."""
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
        """Loads one image as upright RGB.

        Args:
            source: The image as the example holds it.
            where: The path inside the sample, such as `messages[0].content[1]`, for errors.

        Returns:
            A decoded image of mode RGB, without transparency or pending EXIF orientation. It may be
            the source itself, so it must not be written to.

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
        """Loads the sampled frames of one video.

        Args:
            source: The video as the example holds it.
            sampling: The frames that the model takes.
            sampling_rate: The model's audio sampling rate in Hz, or `None` to skip the video's
                audio.
            where: The path inside the sample, for errors.

        Returns:
            The frames with their true times.

        Raises:
            MediaError: If the video is missing, broken, refused or too large; always, unless a
                strategy overrides this method.
        """
        raise MediaError(f"{type(self).__name__} loads no videos; remove it", where=where)

    def load_audio(
        self, source: object, *, sampling_rate: int, where: str
    ) -> npt.NDArray[np.float32]:
        """Loads one audio as mono.

        Args:
            source: The audio as the example holds it.
            sampling_rate: The model's audio sampling rate in Hz.
            where: The path inside the sample, for errors.

        Returns:
            (N,) float32, mono, at `sampling_rate`.

        Raises:
            MediaError: If the audio is missing, broken, refused or too long; always, unless a
                strategy overrides this method.
        """
        raise MediaError(f"{type(self).__name__} loads no audio; remove it", where=where)

    def image_size(self, source: object, *, where: str) -> tuple[int, int] | None:
        """Finds the size of the image that `load_image` returns, without decoding it.

        Args:
            source: The image as the example holds it.
            where: The path inside the sample, for errors.

        Returns:
            The height and the width in pixels, or `None` if only loading gives them; always `None`,
            unless a strategy overrides this method.

        Raises:
            MediaError: If the image is missing, broken, refused or too large.
        """
        del source, where
        return None  # as declared

    def probe_video(self, source: object, *, sampling: FrameSampling, where: str) -> Video | None:
        """Finds the size and the times of the frames that `load_video` returns.

        Args:
            source: The video as the example holds it.
            sampling: The frames that the model takes.
            where: The path inside the sample, for errors.

        Returns:
            The video with black frames and without audio, or `None` if only loading gives the
            frames' size and times; always `None`, unless a strategy overrides this method.

        Raises:
            MediaError: If the video is missing, broken, refused or too large.
        """
        del source, sampling, where
        return None  # as declared
