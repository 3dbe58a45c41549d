"""Loading media from memory, from local files and, if allowed, from the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.errors import MediaError
from vlmcollate.media.base import MediaStrategy
from vlmcollate.media.loading.audio import decode_audio
from vlmcollate.media.loading.audio_arrays import samples_and_rate
from vlmcollate.media.loading.audio_limits import AudioLimits
from vlmcollate.media.loading.depth import GrayRange
from vlmcollate.media.loading.encoded import AUDIO, IMAGE, VIDEO, EncodedKind, EncodedReader
from vlmcollate.media.loading.fetching import UrlFetcher
from vlmcollate.media.loading.frame_arrays import (
    GivenFrames,
    channels_last,
    check_kept_bytes,
    video_from_frames,
)
from vlmcollate.media.loading.image_arrays import image_from_array
from vlmcollate.media.loading.image_modes import Colour
from vlmcollate.media.loading.images import identify, upright_rgb, upright_size
from vlmcollate.media.loading.options import (
    a_colour,
    a_folder_or_none,
    a_range_or_none,
    above_zero,
    as_folder,
    as_formats,
    as_range,
    known_to_pillow,
)
from vlmcollate.media.loading.resampling import mono_from_samples
from vlmcollate.media.loading.sampling import FrameSampling
from vlmcollate.media.loading.soundtracks import decode_soundtrack
from vlmcollate.media.loading.stores import ObjectStores
from vlmcollate.media.loading.video_decoding import decode_video
from vlmcollate.media.loading.videos import Video, VideoLimits
from vlmcollate.validators import an_instance_of, at_least_one

_Frames = list[Any] | tuple[Any, ...] | npt.NDArray[Any] | torch.Tensor
"""A video that is passed as frames."""


@attrs.frozen(kw_only=True)
class LocalMedia(MediaStrategy):
    """Loads media from memory and local files within limits, and by URL only if allowed.

    A path, its bytes, and the PIL image and the uint8 array of the same image give the same pixels:
    upright, with transparency filled, in RGB. PyAV decodes videos, which `vlmcollate[video]`
    installs; soundfile and soxr decode and resample audio, which `vlmcollate[audio]` installs.

    Args:
        root: The folder below which files may be opened, with symlinks followed first; relative
            paths start from it. `None` opens any file, relative to the working directory.
        background: The colour behind transparent pixels, as Pillow names colours.
        max_pixels: The maximum number of pixels (width times height) of an image, checked before
            decoding.
        max_bytes: The maximum number of bytes of an encoded image or audio, checked before reading.
        formats: The image formats that are decoded, by Pillow's names.
        gray_range: The values of black and white in greyscale images with more than 8 bits, such as
            `(0, 4095)`; `None` takes the depth that the file declares, and refuses an image that
            may have fewer than 16 bits.
        frames: The sampling of video frames; `None` takes the settings of the processor.
        max_video_bytes: The maximum number of bytes of an encoded video, checked before reading.
        video_limits: The other limits of a video.
        max_audio_seconds: The maximum length of an audio in seconds, also of a video's.
        max_decoded_audio_bytes: The maximum number of bytes of a decoded audio, 4 for each sample
            of each channel, also of a video's.
        array_sampling_rate: The sampling rate in Hz of audio that comes as a bare array; `None`
            refuses it.
        fetcher: Fetches `http` and `https` URLs; `None` refuses them.
        stores: Reads URLs of object stores, such as `s3://bucket/a.png`; `None` refuses them.

    Raises:
        ConfigError: If an option has another type or is out of range.

    Example:
        >>> LocalMedia().load_image(Image.new("L", (4, 2)), where="images[0]").mode
        'RGB'
    """

    root: Path | None = attrs.field(default=None, converter=as_folder, validator=a_folder_or_none)
    background: Colour = attrs.field(default="white", validator=a_colour)
    max_pixels: int = attrs.field(default=64_000_000, validator=at_least_one)
    max_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=at_least_one)
    formats: tuple[str, ...] = attrs.field(
        default=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"),
        converter=as_formats,
        validator=known_to_pillow,
    )
    gray_range: GrayRange | None = attrs.field(
        default=None, converter=as_range, validator=a_range_or_none
    )
    frames: FrameSampling | None = attrs.field(
        default=None, validator=attrs.validators.optional(an_instance_of(FrameSampling))
    )
    max_video_bytes: int = attrs.field(default=1 << 30, validator=at_least_one)
    video_limits: VideoLimits = attrs.field(
        factory=VideoLimits, validator=an_instance_of(VideoLimits)
    )
    max_audio_seconds: float = attrs.field(default=3600.0, validator=above_zero)
    max_decoded_audio_bytes: int = attrs.field(default=4 << 30, validator=at_least_one)
    array_sampling_rate: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least_one)
    )
    fetcher: UrlFetcher | None = attrs.field(
        default=None, validator=attrs.validators.optional(an_instance_of(UrlFetcher))
    )
    stores: ObjectStores | None = attrs.field(
        default=None, validator=attrs.validators.optional(an_instance_of(ObjectStores))
    )

    def load_image(self, source: object, *, where: str) -> Image.Image:
        """Loads one image as upright RGB.

        Args:
            source: A PIL image; a path or `file://` URI; encoded bytes; a base64 data URI; a dict
                with `bytes` or `path`, as Hugging Face datasets store images (bytes win); or a
                uint8 array or tensor, (H, W), (H, W, 3), (H, W, 4), (3, H, W) or (4, H, W).
            where: The path inside the sample, for errors.

        Returns:
            A decoded image of mode RGB. It is the source itself if that already is one, so it must
            not be written to.

        Raises:
            MediaError: If the image is missing, broken, refused or too large.
        """
        image, name, encoded = self._open_image(source, where)
        return upright_rgb(
            image,
            name,
            encoded=encoded,
            formats=self.formats,
            max_pixels=self.max_pixels,
            background=self.background,
            gray_range=self.gray_range,
            where=where,
        )

    def image_size(self, source: object, *, where: str) -> tuple[int, int]:
        """Reads the height and the width of an image from its header; see `load_image`."""
        image, name, _ = self._open_image(source, where)
        return upright_size(
            image, name, formats=self.formats, max_pixels=self.max_pixels, where=where
        )

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
            source: A path or `file://` URI; encoded bytes; a base64 data URI; a dict with `bytes`
                or `path`; or frames that are sampled already: a (T, H, W, 3) or (T, 3, H, W) uint8
                array or tensor, a list of images, or a folder of them, in the order of the numbers
                in their names. If the options of the video do not state the rate of the frames,
                it is the rate that the model wants.
            sampling: The frames that the model takes. The option `frames` overrides it, except for
                the options of the video itself.
            sampling_rate: The model's audio sampling rate in Hz, to decode the audio of an encoded
                video, or `None` to skip it.
            where: The path inside the sample, for errors.

        Returns:
            The frames, upright RGB, with their true times.

        Raises:
            MediaError: If the video is missing, broken, refused or too large.
        """
        frames = self._frames_of(source, where)
        if frames is not None:
            return self._video_from_frames(frames, sampling, where)
        data, name = self._read_video(source, sampling, where)
        video = self._decode_video(data, name, sampling, where, with_pixels=True)
        if sampling_rate is None:
            return video
        audio = decode_soundtrack(
            data,
            name,
            target=sampling_rate,
            limits=self._audio_limits,
            max_pixels=self.video_limits.max_pixels,
            where=where,
        )
        return attrs.evolve(video, audio=audio)

    def probe_video(self, source: object, *, sampling: FrameSampling, where: str) -> Video:
        """Reads the times of a video's sampled frames, and decodes one of them; see `load_video`.

        The frames of an encoded video are black.
        """
        frames = self._frames_of(source, where)
        if frames is not None:
            return self._video_from_frames(frames, sampling, where)
        data, name = self._read_video(source, sampling, where)
        return self._decode_video(data, name, sampling, where, with_pixels=False)

    def load_audio(
        self, source: object, *, sampling_rate: int, where: str
    ) -> npt.NDArray[np.float32]:
        """Loads one audio as mono.

        Args:
            source: A path or `file://` URI; encoded bytes; a base64 data URI; a dict with `bytes`
                or `path`; `(array, rate)`; or a dict with `array`, `sampling_rate` and, for an
                array of two axes, `channel_axis`. The integers of an array are scaled to [-1, 1). A
                list holds floats, because integers in it have no width. A bare array is
                accepted only if the option `array_sampling_rate` is set.
            sampling_rate: The model's audio sampling rate in Hz.
            where: The path inside the sample, for errors.

        Returns:
            (N,) float32, the average of the channels, at `sampling_rate`.

        Raises:
            MediaError: If the audio is missing, broken, refused or too long, holds NaN, or its
                rate or layout is unknown.
        """
        if isinstance(source, np.ndarray | torch.Tensor):
            source = self._with_rate(source, where)
        if isinstance(source, tuple | list) or (isinstance(source, Mapping) and "array" in source):
            samples, rate = samples_and_rate(source, where=where)
            self._audio_limits.check_seconds(len(samples) / rate, "the audio", where)
            return mono_from_samples(samples, rate, sampling_rate, where=where)
        data, name = self._read(source, AUDIO, self.max_bytes, where)
        limits = self._audio_limits
        return decode_audio(data, name, target=sampling_rate, limits=limits, where=where)

    @property
    def _audio_limits(self) -> AudioLimits:
        return AudioLimits(
            max_seconds=self.max_audio_seconds, max_bytes=self.max_decoded_audio_bytes
        )

    def _read(
        self, source: object, kind: EncodedKind, max_bytes: int, where: str
    ) -> tuple[bytes, str]:
        """The encoded bytes of a source, and their name in errors."""
        return self._reader(kind, max_bytes, where).read(source)

    def _reader(self, kind: EncodedKind, max_bytes: int, where: str) -> EncodedReader:
        return EncodedReader(
            kind=kind,
            max_bytes=max_bytes,
            root=self.root,
            fetcher=self.fetcher,
            stores=self.stores,
            where=where,
        )

    def _open_image(self, source: object, where: str) -> tuple[Image.Image, str, bytes | None]:
        """An image that is not decoded yet, its name in errors, and its bytes, if it has any."""
        if isinstance(source, Image.Image):
            path = getattr(source, "filename", "")
            return source, f"the PIL image of '{path}'" if path else "the PIL image", None
        if isinstance(source, np.ndarray | torch.Tensor):
            array = image_from_array(source, max_pixels=self.max_pixels, where=where)
            return array, "the array", None
        data, name = self._read(source, IMAGE, self.max_bytes, where)
        return identify(data, name, formats=self.formats, where=where), name, data

    def _frames_of(self, source: object, where: str) -> _Frames | None:
        """The frames of a video that is passed as frames, also as a folder of them."""
        if isinstance(source, list | tuple | np.ndarray | torch.Tensor):
            return source
        return self._reader(VIDEO, self.max_video_bytes, where).folder(source)

    def _sampling(self, sampling: FrameSampling) -> FrameSampling:
        """The sampling of a video, whose own options come before the strategy's."""
        if self.frames is None:
            return sampling
        return self.frames.for_item(sampling.item, multiple_of=sampling.multiple_of)

    def _read_video(self, source: object, sampling: FrameSampling, where: str) -> tuple[bytes, str]:
        """The encoded bytes of a video, and their name in errors."""
        if sampling.item.sample_fps is not None:
            raise MediaError(
                "an encoded video holds its own times; remove sample_fps, or set fps to choose "
                "how often a frame is sampled",
                where=where,
            )
        return self._read(source, VIDEO, self.max_video_bytes, where)

    def _decode_video(
        self, data: bytes, name: str, sampling: FrameSampling, where: str, *, with_pixels: bool
    ) -> Video:
        return decode_video(
            data,
            name,
            sampling=self._sampling(sampling),
            limits=self.video_limits,
            where=where,
            with_pixels=with_pixels,
        )

    def _video_from_frames(self, frames: _Frames, sampling: FrameSampling, where: str) -> Video:
        sampling, limits = self._sampling(sampling), self.video_limits
        if isinstance(frames, list | tuple):
            given = GivenFrames.of(len(frames), sampling, where)
            images = self._load_frames(frames, given.kept.tolist(), where)
            return video_from_frames(images, given, limits=limits, where=where)
        pixels = channels_last(frames, where)
        given = GivenFrames.of(len(pixels), sampling, where)
        kept = pixels if len(given.kept) == len(pixels) else pixels[given.kept]
        return video_from_frames(kept, given, limits=limits, where=where)

    def _load_frames(
        self, sources: Sequence[object], kept: Sequence[int], where: str
    ) -> list[Image.Image]:
        """The images of a video, refused before more of them are decoded than may be kept."""
        limits = self.video_limits
        if len(sources) > limits.max_frames:
            raise MediaError(
                f"the video has {len(sources)} frames, more than max_frames={limits.max_frames}; "
                "sample fewer, or raise it",
                where=where,
            )
        images: list[Image.Image] = []
        for i in kept:
            images.append(self.load_image(sources[i], where=f"{where}[{i}]"))
            check_kept_bytes(len(kept), images[-1].size, limits, where)
        return images

    def _with_rate(self, array: npt.NDArray[Any] | torch.Tensor, where: str) -> tuple[Any, int]:
        """A bare array of samples with the rate of the option."""
        if self.array_sampling_rate is None:
            raise MediaError(
                f"an array of shape {tuple(array.shape)} without a rate; pass (array, rate), "
                'or {"array": ..., "sampling_rate": ...}, or set array_sampling_rate',
                where=where,
            )
        return array, self.array_sampling_rate
