"""How one media key of several samples becomes one batch tensor.

Shapes: B samples, M a sample's media items (or patches), N all items of the batch together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs
import torch

from vlmcollate.errors import ConfigError, MediaMismatchError
from vlmcollate.media.memory import empty


@attrs.frozen(kw_only=True)
class Join(ABC):
    """Joins the tensors that the samples of a batch hold under one key.

    The samples' tensors have to share one dtype, and the result has it too. The result is
    contiguous and never shares memory with a sample.

    Args:
        rows: The unit of the first axis, by which a batch can be cut: `"image"`, `"video"` or
            `"audio"` for one row per item of that kind; `"sample"` for one row per sample;
            `"samples with image"` and the like for one row per sample that has such media; or the
            key that holds the number of rows per item, such as a grid of patches. `None` if
            unknown.
    """

    rows: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )

    def __call__(self, values: Sequence[torch.Tensor], *, key: str) -> torch.Tensor:
        """Joins one key.

        Args:
            values: The tensor of each sample that has the key, at least one.
            key: The key, for errors.

        Returns:
            One contiguous tensor of the samples' dtype.

        Raises:
            MediaMismatchError: If the tensors do not fit together.
        """
        _check_dtypes(values, key)
        joined = self.join(values, key).contiguous()
        place = joined.untyped_storage().data_ptr()
        shared = any(value.untyped_storage().data_ptr() == place for value in values)
        return joined.clone() if shared else joined

    def fill_missing(self, like: torch.Tensor) -> torch.Tensor | None:
        """What a sample without the key puts in its place; by default nothing.

        Args:
            like: The tensor of another sample.
        """
        del like
        return None

    @abstractmethod
    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """Joins the samples' tensors; the hook of a joining rule of your own.

        Args:
            values: At least one tensor; all have one dtype.
            key: The media key, for errors.
        """


@attrs.frozen(kw_only=True)
class Concatenate(Join):
    """Lays the samples' items one after another: (M, ...) of each becomes (N, ...).

    Example:
        >>> Concatenate()([torch.zeros(2, 3), torch.zeros(1, 3)], key="pixel_values").shape
        torch.Size([3, 3])
    """

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """See `Join`."""
        _check_has_items(values, key)
        _check_shapes(values, key, first_axis=1, mend="join the key with PadAndConcatenate()")
        return _concatenated(values)


@attrs.frozen(kw_only=True)
class PadAndConcatenate(Join):
    """Pads every axis but the first at its end to the batch's largest, then concatenates.

    Args:
        value: What the padding holds.
        every_sample: Whether a sample without the key gets a row of padding, for models that take
            one row a sample.

    Example:
        >>> PadAndConcatenate()([torch.ones(1, 2), torch.ones(1, 1)], key="mask").tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """

    value: float = attrs.field(default=0)
    every_sample: bool = attrs.field(default=False)

    @value.validator
    def _check_value(self, _: object, value: object) -> None:
        if not isinstance(value, int | float):
            raise ConfigError(f"value must be a number to pad with, not {value!r}")

    def fill_missing(self, like: torch.Tensor) -> torch.Tensor | None:
        """See `Join`."""
        if not self.every_sample:
            return None
        return like.new_full((1,) * like.ndim, self.value)

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """See `Join`."""
        _check_has_items(values, key)
        _check_axes(values, key)
        tails = {value.shape[1:] for value in values}
        if len(tails) == 1:
            return _concatenated(values)
        _check_holds(values[0].dtype, self.value, key)
        largest = [max(sizes) for sizes in zip(*tails, strict=True)]
        joined = empty((sum(map(len, values)), *largest), values[0].dtype).fill_(self.value)
        return _filled(joined, values)


@attrs.frozen(kw_only=True)
class Stack(Join):
    """Puts one tensor of each sample beside the others: (...) of each becomes (B, ...).

    Example:
        >>> Stack()([torch.zeros(3), torch.ones(3)], key="size").shape
        torch.Size([2, 3])
    """

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """See `Join`."""
        _check_shapes(values, key, first_axis=0, mend="bring them to one shape first")
        return torch.stack(list(values))


def grid_joins(**more: Join) -> dict[str, Join]:
    """Returns the joining rules of images and videos that are cut into grids of patches.

    Args:
        **more: The rules of further keys.
    """
    return {
        "pixel_values": Concatenate(rows="image_grid_thw"),
        "image_grid_thw": Concatenate(rows="image"),
        "pixel_values_videos": Concatenate(rows="video_grid_thw"),
        "video_grid_thw": Concatenate(rows="video"),
        **more,
    }


def _concatenated(values: Sequence[torch.Tensor]) -> torch.Tensor:
    first = values[0]
    rows = sum(len(value) for value in values)
    return torch.cat(list(values), out=empty((rows, *first.shape[1:]), first.dtype))


def _filled(joined: torch.Tensor, values: Sequence[torch.Tensor]) -> torch.Tensor:
    start = 0
    for value in values:
        rows = slice(start, start + len(value))
        joined[(rows, *(slice(size) for size in value.shape[1:]))] = value
        start += len(value)
    return joined


def _check_dtypes(values: Sequence[torch.Tensor], key: str) -> None:
    if not values:
        raise MediaMismatchError(f"no tensors to join under {key!r}; pass at least one")
    for position, value in enumerate(values):
        if value.dtype != values[0].dtype:
            raise MediaMismatchError(
                f"tensor {position} of {key!r} is {value.dtype}, but tensor 0 is "
                f"{values[0].dtype}; cast them to one dtype, for instance by the media "
                "strategy's dtype option"
            )


def _check_has_items(values: Sequence[torch.Tensor], key: str) -> None:
    for position, value in enumerate(values):
        if not value.ndim:
            raise MediaMismatchError(
                f"tensor {position} of {key!r} is a scalar without a first axis to concatenate "
                "on; join the key with Stack()"
            )


def _check_axes(values: Sequence[torch.Tensor], key: str) -> None:
    for position, value in enumerate(values):
        if value.ndim != values[0].ndim:
            raise _mismatch(values, position, key, "all of them need the same number of axes")


def _check_shapes(values: Sequence[torch.Tensor], key: str, *, first_axis: int, mend: str) -> None:
    expected = values[0].shape[first_axis:]
    for position, value in enumerate(values):
        if value.ndim != values[0].ndim or value.shape[first_axis:] != expected:
            agree = "have to agree after the first axis" if first_axis else "have to agree"
            raise _mismatch(values, position, key, f"shapes {agree}; {mend}")


def _mismatch(
    values: Sequence[torch.Tensor], position: int, key: str, rule: str
) -> MediaMismatchError:
    return MediaMismatchError(
        f"tensor {position} of {key!r} has shape {tuple(values[position].shape)}, but tensor 0 "
        f"has {tuple(values[0].shape)}; {rule}"
    )


def _check_holds(dtype: torch.dtype, value: float, key: str) -> None:
    if dtype.is_floating_point or dtype.is_complex:
        return
    # torch would cut 0.5 to 0 and wrap -1 to 255 without a word.
    lowest, highest = (0, 1) if dtype == torch.bool else _limits(dtype)
    # NaN and the infinities leave NaN after % 1, which counts as true.
    if value % 1 or not lowest <= value <= highest:
        raise MediaMismatchError(
            f"{key!r} is {dtype}, which cannot hold the padding value {value}; "
            "give PadAndConcatenate a value that it can hold"
        )


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return info.min, info.max
