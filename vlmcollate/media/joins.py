"""Joining the tensors of one media key into a batch tensor.

Shapes: B samples, M media items (or patches) of a sample, N those of the whole batch.
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
    """Joins the tensors that the samples of a batch hold under one media key.

    The tensors of all samples must have one dtype, which the result has, too. The result is
    contiguous and never shares memory with a sample.

    A join of your own overrides `join` and, if samples without the key get rows, `fill_missing`.

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
        """Joins the tensors of one key.

        Args:
            values: The tensor of each sample that has the key, at least one.
            key: The media key, for errors.

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
        """Makes the tensor of a sample without the key; by default none.

        Args:
            like: The tensor of another sample, for its dtype and number of axes.

        Returns:
            The tensor, or `None` to skip the sample.
        """
        del like
        return None

    @abstractmethod
    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """Joins the samples' tensors; the hook of a join of your own.

        Args:
            values: The tensor of each sample that has the key, at least one, all of one dtype.
            key: The media key, for errors.

        Returns:
            The joined tensor.

        Raises:
            MediaMismatchError: If the tensors do not fit together.
        """


@attrs.frozen(kw_only=True)
class Concatenate(Join):
    """Concatenates the samples' items: (M, ...) of each becomes (N, ...).

    Example:
        >>> Concatenate()([torch.zeros(2, 3), torch.zeros(1, 3)], key="pixel_values").shape
        torch.Size([3, 3])
    """

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """See `Join`."""
        _check_has_items(values, key)
        _check_shapes(values, key, first_axis=1, remedy="join the key with PadAndConcatenate()")
        return _concatenate(values)


@attrs.frozen(kw_only=True)
class PadAndConcatenate(Join):
    """Pads every axis but the first at its end to the batch's largest, then concatenates.

    Args:
        value: The value of the padding, default 0.
        every_sample: Whether a sample without the key gets a row of padding, for models that take
            one row per sample.

    Raises:
        ConfigError: If `value` is not a number.

    Example:
        >>> PadAndConcatenate()([torch.ones(1, 2), torch.ones(1, 1)], key="mask").tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """

    value: float = attrs.field(default=0)
    every_sample: bool = attrs.field(default=False)

    @value.validator
    def _check_value(self, _: object, value: object) -> None:
        if not isinstance(value, int | float):
            raise ConfigError(f"value must be a number for the padding, not {value!r}")

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
            return _concatenate(values)
        _check_holds(values[0].dtype, self.value, key)
        largest = [max(sizes) for sizes in zip(*tails, strict=True)]
        joined = empty((sum(map(len, values)), *largest), values[0].dtype).fill_(self.value)
        return _fill(joined, values)


@attrs.frozen(kw_only=True)
class Stack(Join):
    """Stacks one tensor of each sample: (...) of each becomes (B, ...).

    Example:
        >>> Stack()([torch.zeros(3), torch.ones(3)], key="size").shape
        torch.Size([2, 3])
    """

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """See `Join`."""
        _check_shapes(values, key, first_axis=0, remedy="bring them to one shape first")
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


def _concatenate(values: Sequence[torch.Tensor]) -> torch.Tensor:
    first = values[0]
    rows = sum(len(value) for value in values)
    return torch.cat(list(values), out=empty((rows, *first.shape[1:]), first.dtype))


def _fill(joined: torch.Tensor, values: Sequence[torch.Tensor]) -> torch.Tensor:
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
                f"{values[0].dtype}; cast them to one dtype, for instance with the option dtype of "
                "the media strategy"
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
            raise _mismatch(values, position, key, "bring all of them to one number of axes")


def _check_shapes(
    values: Sequence[torch.Tensor], key: str, *, first_axis: int, remedy: str
) -> None:
    expected = values[0].shape[first_axis:]
    for position, value in enumerate(values):
        if value.ndim != values[0].ndim or value.shape[first_axis:] != expected:
            agree = "must agree after the first axis" if first_axis else "must agree"
            raise _mismatch(values, position, key, f"shapes {agree}; {remedy}")


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
    # torch would cut 0.5 to 0 and wrap -1 to 255 silently
    lowest, highest = (0, 1) if dtype == torch.bool else _limits(dtype)
    # NaN and the infinities give NaN in % 1, which counts as true
    if value % 1 or not lowest <= value <= highest:
        raise MediaMismatchError(
            f"{key!r} is {dtype}, which cannot hold the padding value {value}; "
            "give PadAndConcatenate a value that it can hold"
        )


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    info = torch.iinfo(dtype)
    return info.min, info.max
