"""Resizing media items to a size of their own, as their processor resizes.

Shapes: T frames, H rows, W columns.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from vlmcollate.conversation import MediaKind, MediaOptions
from vlmcollate.errors import MediaError
from vlmcollate.media.loading.pixel_images import PixelImage
from vlmcollate.media.loading.videos import Video

RESIZED = "vlmcollate resized"
"""The key of an image's info that says that the image has the size that the model takes."""
_IMAGE_TOKENS = (4, 16384)
_TOTAL_TOKENS = 115_200
"""The limits of the Qwen utilities, in tokens: of an image whose size is set, and of a video."""
_MAX_PIXELS = 1 << 28
"""The maximum pixels that the options of an item may ask for, of an image or of one frame."""


@attrs.frozen(kw_only=True)
class Resizer:
    """The resizing of an image or video processor that takes whole patches within limits.

    Attributes:
        part: The image or video processor, whose `size` limits the pixels.
        fit: The function by which it finds the height and the width after resizing.
        frame_tokens: The minimum and maximum tokens of a frame; `None` takes those of `part`.
    """

    part: Any
    fit: Callable[..., tuple[int, int]]
    frame_tokens: tuple[int, int] | None = None

    @classmethod
    def of(
        cls, processor: Any, kind: MediaKind, frame_tokens: tuple[int, int] | None
    ) -> Resizer | None:
        """Finds the resizing of a processor.

        Args:
            processor: A `transformers` processor.
            kind: `"image"` or `"video"`.
            frame_tokens: The limits of the model family for a frame of a video.

        Returns:
            The resizing, or `None` if the processor has no limits of pixels.
        """
        part = getattr(processor, f"{kind}_processor", None)
        if not all(getattr(part, name, None) for name in ("patch_size", "merge_size", "size")):
            return None
        owner = next((c for c in type(part).__mro__ if "resize" in vars(c)), object)
        fit = getattr(sys.modules[owner.__module__], "smart_resize", None)
        if fit is None or not {"shortest_edge", "longest_edge"} <= set(_sizes(part)):
            return None
        return cls(part=part, fit=fit, frame_tokens=frame_tokens if kind == "video" else None)

    def size(
        self, shape: tuple[int, ...], options: MediaOptions, *, of_images: bool, where: str
    ) -> tuple[int, int] | None:
        """Returns the height and the width of an item after resizing.

        Args:
            shape: (H, W) of an image, or (T, H, W) of a video.
            options: The options of the item.
            of_images: Whether a video was passed as separate images.
            where: The path inside the sample, for errors.

        Returns:
            The size, or `None` if the processor chooses it.

        Raises:
            MediaError: If the size that the options state is outside of their limits, or too large
                for any model.
        """
        found = self._size(shape, options, of_images=of_images, where=where)
        if found is not None and found[0] * found[1] > _MAX_PIXELS:
            raise MediaError(
                f"the options give a size of {found[1]}x{found[0]}, more than {_MAX_PIXELS} "
                "pixels; lower min_pixels",
                where=where,
            )
        return found

    def _size(
        self, shape: tuple[int, ...], options: MediaOptions, *, of_images: bool, where: str
    ) -> tuple[int, int] | None:
        factor = self.factor
        if options.resized_height is not None and options.resized_width is not None:
            wanted = options.resized_height, options.resized_width
            stated = self._fit(wanted, *_image_limits(factor), factor, where)
            _check_limits(stated, options, where)
            return stated
        if not options.resizes and self.frame_tokens is None:
            return None
        size: tuple[int, ...] = shape[-2:]
        if of_images:  # the Qwen utilities resize each image on its own first
            least, most = _image_limits(2 * factor)
            least, most = options.min_pixels or least, options.max_pixels or most
            size = self._fit(size, least, most, 2 * factor, where)
        return self._fit(size, *self._limits(shape, options), factor, where)

    def tokens(self, shape: tuple[int, ...], size: tuple[int, int]) -> int:
        """Returns the number of tokens of an item that was resized.

        Args:
            shape: (H, W) of an image, or (T, H, W) of a video.
            size: The height and the width after resizing.
        """
        layers = -(-shape[0] // self._step) if len(shape) == 3 else 1
        return layers * size[0] * size[1] // self.factor**2

    def resize(self, item: Any, size: tuple[int, int]) -> Any:
        """Resizes an RGB image or a video as the processor does, and marks it as resized."""
        if isinstance(item, Video):
            frames = self._resized(item.frames.transpose(0, 3, 1, 2), size).transpose(0, 2, 3, 1)
            return attrs.evolve(item, frames=np.ascontiguousarray(frames), is_resized=True)
        pixels = self._resized(np.asarray(item).transpose(2, 0, 1), size).transpose(1, 2, 0)
        return PixelImage(np.ascontiguousarray(pixels), {RESIZED: True})

    @property
    def factor(self) -> int:
        """The side of the square of pixels that becomes one token."""
        return int(self.part.patch_size * self.part.merge_size)

    @property
    def _step(self) -> int:
        return getattr(self.part, "temporal_patch_size", None) or 1

    @property
    def _counts_frames(self) -> bool:
        """Whether the processor's limits count the pixels of all frames."""
        return "num_frames" in inspect.signature(self.fit).parameters

    def _limits(self, shape: tuple[int, ...], options: MediaOptions) -> tuple[float, float]:
        """The minimum and maximum pixels of an image, or of each frame of a video."""
        if self.frame_tokens is not None:
            least, most = (float(tokens * self.factor**2) for tokens in self.frame_tokens)
        else:
            sizes = _sizes(self.part)
            least, most = float(sizes["shortest_edge"]), float(sizes["longest_edge"])
            if self._counts_frames:
                frames = shape[0] if len(shape) == 3 else self._step
                least, most = least / frames, most / frames
        given_least, given_most = options.min_pixels, options.max_pixels
        if given_least is not None:
            least = given_least
        elif given_most is not None and given_most < least:
            least = self.factor**2  # the limit of the item comes before that of the model
        if len(shape) == 3:  # as the Qwen utilities limit a video
            total = options.total_pixels or _TOTAL_TOKENS * self.factor**2
            most = max(min(most, total / shape[0] * self._step), int(least * 1.05))
            return least, min(given_most or most, most)
        return least, max(given_most or most, least)

    def _fit(
        self, size: tuple[int, ...], least: float, most: float, factor: int, where: str
    ) -> tuple[int, int]:
        height, width = size
        more = {}
        if self._counts_frames:  # as many as one layer of patches holds
            more = {"num_frames": self._step, "temporal_factor": self._step}
            least, most = least * self._step, most * self._step
        try:
            return self.fit(
                height=height,
                width=width,
                factor=factor,
                min_pixels=least,
                max_pixels=most,
                **more,
            )
        except ValueError as error:
            raise MediaError(
                f"{type(self.part).__name__} refuses a size of {width}x{height}: {error}; correct "
                "the options of this item, or drop the sample",
                where=where,
            ) from error

    def _resized(self, pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> Any:
        """Pixels (..., 3, H, W), resized by the backend of the processor."""
        from transformers.image_utils import SizeDict

        part = self.part
        backend: Any = next(c for c in type(part).__mro__ if c.__name__.endswith("Backend"))
        target = SizeDict(height=size[0], width=size[1])
        if backend.__name__ == "TorchvisionBackend":
            tensor = torch.from_numpy(np.ascontiguousarray(pixels))
            return backend.resize(part, tensor, size=target, resample=part.resample).numpy()
        return np.asarray(backend.resize(part, pixels, size=target, resample=part.resample))


def is_resized(item: Any) -> bool:
    """Returns whether an item has a size of its own, which the processor has to keep."""
    if isinstance(item, Video):
        return item.is_resized
    return isinstance(item, Image.Image) and bool(item.info.get(RESIZED))


def without_mark(image: Image.Image) -> Image.Image:
    """Returns a copy of an image that the processor may resize."""
    copy = image.copy()
    del copy.info[RESIZED]
    return copy


def item_arguments(item: Any) -> dict[str, Any]:
    """Returns the arguments with which a processor takes an item as it is; often none."""
    if not is_resized(item):
        return {}
    return {f"{'videos' if isinstance(item, Video) else 'images'}_kwargs": {"do_resize": False}}


def _image_limits(factor: int) -> tuple[int, int]:
    """The limits of the Qwen utilities for the pixels of an image."""
    return _IMAGE_TOKENS[0] * factor**2, _IMAGE_TOKENS[1] * factor**2


def _sizes(part: Any) -> dict[str, int]:
    size = part.size if isinstance(part.size, Mapping) else vars(part.size)
    return {key: size[key] for key in ("shortest_edge", "longest_edge") if size.get(key)}


def _check_limits(size: tuple[int, int], options: MediaOptions, where: str) -> None:
    least, most = options.min_pixels or 1, options.max_pixels
    if not least <= size[0] * size[1] <= (most or size[0] * size[1]):
        raise MediaError(
            f"resized_height and resized_width give {size[1]}x{size[0]}, which has "
            f"{size[0] * size[1]} pixels and is outside of min_pixels={options.min_pixels} and "
            f"max_pixels={most}; keep one of the two pairs",
            where=where,
        )
