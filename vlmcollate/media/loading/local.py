"""Loading media from memory, from local files and, where allowed, from the network."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.errors import ConfigError, MediaError
from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.loading.arrays import from_array
from vlmcollate.media.loading.audio import AudioLimits, decode_audio, mono_at, stated_samples
from vlmcollate.media.loading.containers import soundtrack
from vlmcollate.media.loading.fetching import UrlFetcher
from vlmcollate.media.loading.images import (
    Colour,
    identify,
    known_formats,
    upright_rgb,
    upright_size,
)
from vlmcollate.media.loading.sources import check_bytes, decode_base64, read_file, shortened
from vlmcollate.media.loading.urls import without_secrets
from vlmcollate.media.loading.videos import (
    FrameSampling,
    Video,
    VideoLimits,
    check_kept,
    decode_video,
    frames_video,
)
from vlmcollate.validators import an_instance_of

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@attrs.frozen
class _Kind:
    """What errors say of a kind of media."""

    article: str
    name: str
    accepted: str
    data_uri: str


_ENCODED = "a path, encoded bytes, a data URI, a dict of 'bytes' or 'path'"
_IMAGE = _Kind("an", "image", f"a PIL image, {_ENCODED}, or a uint8 array", "data:image/png;base64")
_VIDEO = _Kind(
    "a", "video", f"{_ENCODED}, a list of images or a uint8 array", "data:video/mp4;base64"
)
_AUDIO = _Kind(
    "an",
    "audio",
    f"{_ENCODED}, (array, rate), or a dict of 'array' and 'sampling_rate'",
    "data:audio/wav;base64",
)


def _as_formats(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ConfigError(
            f"formats must be a tuple of names such as ('JPEG', 'PNG'), not {value!r}"
        )
    return tuple(name.upper() for name in value)


def _as_root(value: str | os.PathLike[str] | None) -> Path | None:
    if value is None or isinstance(value, str | os.PathLike):
        return None if value is None else Path(value)
    raise ConfigError(f"root must be a folder or None, not {value!r}")


def _check_positive(_: object, option: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{option.name} must be a whole number above 0, not {value!r}")


@attrs.frozen(kw_only=True)
class LocalMedia(MediaStrategy):
    """Loads media from memory and local files within limits, and by network only where allowed.

    A path, its bytes, the PIL image and the uint8 array of the same picture give the same pixels:
    upright, with transparency filled, in RGB. Videos are decoded by PyAV and sounds by soundfile
    and soxr, which the extras `vlmcollate[video]` and `vlmcollate[audio]` install.

    Args:
        root: The folder below which files may be opened, with symlinks followed first; relative
            paths start from it. `None` opens any file, relative to the working directory.
        background: The colour behind transparent pixels, as Pillow names colours.
        max_pixels: The most pixels (width times height) of an image, checked before decoding.
        max_bytes: The most bytes of an encoded image or sound, checked before reading.
        formats: The image formats that are decoded, by Pillow's names.
        significant_bits: The depth of greyscale images stored in 16 bits, such as 12; `None` takes
            what the file declares, and refuses an image that may have fewer than 16.
        frames: Which frames of a video are taken; `None` leaves it to the processor's settings.
        max_video_bytes: The most bytes of an encoded video, checked before reading.
        video_limits: What else a video may not exceed.
        max_audio_seconds: The longest sound, also of a video.
        max_decoded_audio_bytes: The most bytes that an encoded sound has when decoded, 4 for each
            sample and channel, also of a video.
        array_sampling_rate: The rate of sounds that come as arrays alone; `None` refuses them.
        fetcher: Fetches `http` and `https` URLs; `None` refuses them.
        dtype: The dtype that floating point media tensors are cast to; `None` leaves them.

    Raises:
        ConfigError: If an option is not one of these.

    Example:
        >>> LocalMedia().load_image(Image.new("L", (4, 2)), where="images[0]").mode
        'RGB'
    """

    root: Path | None = attrs.field(default=None, converter=_as_root)
    background: Colour = attrs.field(default="white")
    max_pixels: int = attrs.field(default=64_000_000, validator=_check_positive)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_check_positive)
    formats: tuple[str, ...] = attrs.field(
        default=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"), converter=_as_formats
    )
    significant_bits: int | None = attrs.field(default=None)
    frames: FrameSampling | None = attrs.field(
        default=None, validator=attrs.validators.optional(an_instance_of(FrameSampling))
    )
    max_video_bytes: int = attrs.field(default=1 << 30, validator=_check_positive)
    video_limits: VideoLimits = attrs.field(
        factory=VideoLimits, validator=an_instance_of(VideoLimits)
    )
    max_audio_seconds: float = attrs.field(default=3600.0)
    max_decoded_audio_bytes: int = attrs.field(default=4 << 30, validator=_check_positive)
    array_sampling_rate: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_check_positive)
    )
    fetcher: UrlFetcher | None = attrs.field(
        default=None, validator=attrs.validators.optional(an_instance_of(UrlFetcher))
    )
    dtype: torch.dtype | None = attrs.field(default=None)

    @max_audio_seconds.validator
    def _check_seconds(self, _: object, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise ConfigError(f"max_audio_seconds must be a number above 0, not {value!r}")

    @significant_bits.validator
    def _check_bits(self, _: object, value: object) -> None:
        if value is not None and (type(value) is not int or not 1 <= value <= 16):
            raise ConfigError(f"significant_bits must be None or from 1 to 16, not {value!r}")

    @root.validator
    def _check_root(self, _: object, value: Path | None) -> None:
        if value is not None and not value.is_dir():
            raise ConfigError(f"root '{value}' is not a folder; create it or correct the path")

    @background.validator
    def _check_background(self, _: object, value: Any) -> None:
        try:
            Image.new("RGB", (1, 1), value)
            named = value is not None and (isinstance(value, str) or len(value) == 3)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"background {value!r} is not a colour ({error})") from error
        if not named:
            raise ConfigError(f"background must be a colour such as 'white', not {value!r}")

    @formats.validator
    def _check_formats(self, _: object, value: tuple[str, ...]) -> None:
        unknown = sorted(set(value) - known_formats())
        if unknown or not value:
            raise ConfigError(
                f"formats holds {unknown}, which this Pillow cannot open; it knows "
                f"{', '.join(sorted(known_formats()))}"
            )

    @dtype.validator
    def _check_dtype(self, _: object, value: object) -> None:
        if value is None or (isinstance(value, torch.dtype) and value.is_floating_point):
            return
        raise ConfigError(f"dtype must be floating, such as torch.bfloat16, not {value!r}")

    def load_image(self, source: object, *, where: str) -> Image.Image:
        """Loads one image as plain upright RGB.

        Args:
            source: A PIL image; a path or `file://` URI; encoded bytes; a base64 data URI; a dict
                with `bytes` or `path`, as Hugging Face datasets store images (bytes win); or a
                uint8 array or tensor, (H, W), (H, W, 3), (H, W, 4), (3, H, W) or (4, H, W).
            where: The path inside the sample, for errors.

        Returns:
            A decoded image of mode RGB. It is the source itself where that already is one, so it
            is only to be read.

        Raises:
            MediaError: If the image is missing, broken, refused or too large.
        """
        if isinstance(source, Image.Image):
            return self._finished(source, _pil_name(source), where)
        if isinstance(source, np.ndarray | torch.Tensor):
            image = from_array(source, max_pixels=self.max_pixels, where=where)
            return self._finished(image, "the array", where)
        data, name = self._encoded(source, _IMAGE, self.max_bytes, where)
        return self._finished(identify(data, name, formats=self.formats, where=where), name, where)

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
            source: A path or `file://` URI; encoded bytes; a base64 data URI; a dict with `bytes`
                or `path`; or frames that were chosen already: a (T, H, W, 3) or (T, 3, H, W) uint8
                array or tensor, a list of images, or a dict with these under `video` and their
                `fps`. Frames without `fps` count as taken at the rate that the model asks for.
            sampling: Which frames the model wants; `frames` of the strategy comes first.
            sampling_rate: Where given, the sound of an encoded video is loaded too, at this rate.
            where: The path inside the sample, for errors.

        Returns:
            The frames, upright RGB, with their true times.

        Raises:
            MediaError: If the video is missing, broken, refused or too large.
        """
        sampling = self.frames or sampling
        fps = None
        if isinstance(source, Mapping) and "video" in source:
            fps, source = source.get("fps"), source["video"]
        if isinstance(source, list | tuple):
            source = self._frames(source, where)
        if isinstance(source, list | np.ndarray | torch.Tensor):
            return frames_video(
                source,
                fps=fps,
                default_fps=sampling.fps or 1.0,
                limits=self.video_limits,
                where=where,
            )
        if fps is not None:
            raise MediaError(
                "an encoded video states its own times; remove 'fps', or set the strategy's "
                "frames=FrameSampling(fps=...) to choose how often a frame is taken",
                where=where,
            )
        data, name = self._encoded(source, _VIDEO, self.max_video_bytes, where)
        video = decode_video(data, name, sampling=sampling, limits=self.video_limits, where=where)
        if sampling_rate is None:
            return video
        audio = soundtrack(
            data,
            name,
            target=sampling_rate,
            limits=self._audio_limits,
            max_pixels=self.video_limits.max_pixels,
            where=where,
        )
        return attrs.evolve(video, audio=audio)

    def load_audio(
        self, source: object, *, sampling_rate: int, where: str
    ) -> npt.NDArray[np.float32]:
        """Loads one sound as mono.

        Args:
            source: A path or `file://` URI; encoded bytes; a base64 data URI; a dict with `bytes`
                or `path`; `(array, rate)`; or a dict with `array`, `sampling_rate` and, for an
                array of two axes, `channel_axis`. Integers are scaled to [-1, 1). An array by
                itself is taken only where `array_sampling_rate` is set.
            sampling_rate: The rate that the model hears in, in samples a second.
            where: The path inside the sample, for errors.

        Returns:
            (N,) float32, the average of the channels, at `sampling_rate`.

        Raises:
            MediaError: If the sound is missing, broken, refused or too long, holds NaN, or its
                rate or layout is not known.
        """
        if isinstance(source, np.ndarray | torch.Tensor):
            if self.array_sampling_rate is None:
                raise MediaError(
                    f"an array of shape {tuple(source.shape)} without a rate; pass (array, rate), "
                    'or {"array": ..., "sampling_rate": ...}, or set array_sampling_rate',
                    where=where,
                )
            source = (source, self.array_sampling_rate)
        if isinstance(source, tuple | list) or (isinstance(source, Mapping) and "array" in source):
            samples, rate = stated_samples(source, where=where)
            self._audio_limits.check_seconds(len(samples) / rate, "the sound", where)
            return mono_at(samples, rate, sampling_rate, where=where)
        data, name = self._encoded(source, _AUDIO, self.max_bytes, where)
        limits = self._audio_limits
        return decode_audio(data, name, target=sampling_rate, limits=limits, where=where)

    def image_size(self, source: object, *, where: str) -> tuple[int, int]:
        """The height and width of an image, from its header; see `load_image`."""
        name = "the array"
        if isinstance(source, Image.Image):
            image, name = source, _pil_name(source)
        elif isinstance(source, np.ndarray | torch.Tensor):
            image = from_array(source, max_pixels=self.max_pixels, where=where)
        else:
            data, name = self._encoded(source, _IMAGE, self.max_bytes, where)
            image = identify(data, name, formats=self.formats, where=where)
        return upright_size(
            image, name, formats=self.formats, max_pixels=self.max_pixels, where=where
        )

    def probe_video(self, source: object, *, sampling: FrameSampling, where: str) -> Video:
        """A video's sampled times with black frames, of which one is decoded; see `load_video`."""
        if isinstance(source, Mapping) and "video" not in source:
            encoded = True
        else:
            frames = source["video"] if isinstance(source, Mapping) else source
            encoded = not isinstance(frames, list | tuple | np.ndarray | torch.Tensor)
        if not encoded:
            return self.load_video(source, sampling=sampling, where=where)
        data, name = self._encoded(source, _VIDEO, self.max_video_bytes, where)
        return decode_video(
            data,
            name,
            sampling=self.frames or sampling,
            limits=self.video_limits,
            where=where,
            with_pixels=False,
        )

    def cast(self, key: str, value: torch.Tensor) -> torch.Tensor:
        """Casts a floating point media tensor to `dtype`.

        Args:
            key: The tensor's name in the batch; every name is treated alike.
            value: The tensor, of any shape.

        Returns:
            The tensor of the same shape; integer and bool tensors come back as they are.
        """
        if self.dtype is None or not value.is_floating_point():
            return value
        return value.to(self.dtype)

    @property
    def _audio_limits(self) -> AudioLimits:
        return AudioLimits(
            max_seconds=self.max_audio_seconds, max_bytes=self.max_decoded_audio_bytes
        )

    def _frames(self, sources: Sequence[object], where: str) -> list[Image.Image]:
        """The images of a video, refused before more of them are decoded than may be kept."""
        limits = self.video_limits
        if len(sources) > limits.max_frames:
            raise MediaError(
                f"the video has {len(sources)} frames, more than max_frames={limits.max_frames}",
                where=where,
            )
        images: list[Image.Image] = []
        for i, source in enumerate(sources):
            images.append(self.load_image(source, where=f"{where}[{i}]"))
            check_kept(len(sources), images[-1], limits, where)
        return images

    def _finished(self, image: Image.Image, name: str, where: str) -> Image.Image:
        return upright_rgb(
            image,
            name,
            formats=self.formats,
            max_pixels=self.max_pixels,
            background=self.background,
            significant_bits=self.significant_bits,
            where=where,
        )

    def _encoded(
        self, source: object, kind: _Kind, max_bytes: int, where: str
    ) -> tuple[bytes, str]:
        """The encoded bytes behind a source, and what to call them in errors."""
        if isinstance(source, str | os.PathLike):
            return self._from_text(os.fspath(source), kind, max_bytes, where)
        if isinstance(source, bytes | bytearray | memoryview):
            size = source.nbytes if isinstance(source, memoryview) else len(source)
            check_bytes(size, f"the encoded {kind.name}", max_bytes, where)
            return bytes(source), f"the encoded {kind.name}"
        if isinstance(source, Mapping):
            return self._from_mapping(source, kind, max_bytes, where)
        raise MediaError(
            f"{kind.article} {kind.name} is {type(source).__name__}, expected {kind.accepted}",
            where=where,
        )

    def _from_mapping(
        self, source: Mapping[Any, Any], kind: _Kind, max_bytes: int, where: str
    ) -> tuple[bytes, str]:
        encoded, path = source.get("bytes"), source.get("path")
        if isinstance(encoded, bytes | bytearray | memoryview):
            return self._encoded(encoded, kind, max_bytes, where)
        if encoded is None and isinstance(path, str | os.PathLike):
            return self._encoded(path, kind, max_bytes, where)
        raise MediaError(
            f"{kind.article} {kind.name} dict holds {type(encoded).__name__} under 'bytes' and "
            f"{type(path).__name__} under 'path' (keys: {list(source)}); expected encoded bytes "
            "or a path under one of them",
            where=where,
        )

    def _from_text(
        self, text: str | bytes, kind: _Kind, max_bytes: int, where: str
    ) -> tuple[bytes, str]:
        if isinstance(text, bytes):
            text = os.fsdecode(text)
        if text[:5].lower() == "data:":
            return _from_data_uri(text, kind, max_bytes, where), "the data URI"
        url = _URL.match(text)
        if url and url[1].lower() in ("http", "https") and self.fetcher is not None:
            data = self.fetcher.fetch(text, where=where)
            name = f"'{without_secrets(text)}'"
            check_bytes(len(data), name, max_bytes, where)
            return data, name
        path = Path(text if url is None else _local_path(text, url[1].lower(), where))
        found = self._below_root(path, where)
        return read_file(found, kind=kind.name, max_bytes=max_bytes, where=where), f"'{path}'"

    def _below_root(self, path: Path, where: str) -> Path:
        if self.root is None:
            return path
        try:
            root = self.root.resolve()
            resolved = (root / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise MediaError(
                f"{shortened(str(path))!r} is not a usable path ({error}); correct it", where=where
            ) from error
        if not resolved.is_relative_to(root):
            raise MediaError(
                f"'{path}' leads to '{resolved}', outside root '{root}'; move the file below "
                "root, or choose another root",
                where=where,
            )
        return resolved


def _from_data_uri(text: str, kind: _Kind, max_bytes: int, where: str) -> bytes:
    header, comma, encoded = text.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise MediaError(
            f"the data URI starts with {text[:40]!r}, expected '{kind.data_uri},' and the "
            f"{kind.name} in base64",
            where=where,
        )
    # Four letters hold three bytes; checked before another copy is made.
    check_bytes(len(encoded) // 4 * 3 - 2, "the data URI", max_bytes, where)
    return decode_base64(encoded, where)


def _pil_name(image: Image.Image) -> str:
    path = getattr(image, "filename", "")
    return f"the PIL image of '{path}'" if path else "the PIL image"


def _local_path(url: str, scheme: str, where: str) -> str:
    if scheme != "file":
        raise MediaError(
            f"'{without_secrets(url)}' is a URL, and nothing is fetched from the network while "
            "collating; download it first and pass the path or the bytes, or allow its host with "
            "LocalMedia(fetcher=UrlFetcher(hosts=[...]))",
            where=where,
        )
    host = url[len("file://") :].partition("/")[0]
    if host.lower() not in ("", "localhost"):
        raise MediaError(
            f"'{without_secrets(url)}' names the host '{host}', expected 'file:///' and an "
            "absolute path on this machine",
            where=where,
        )
    return unquote(urlsplit(url).path)
