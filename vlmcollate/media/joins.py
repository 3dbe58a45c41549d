"""Joining the tensors of one media key into a batch tensor.

Shapes: B samples, M media items (or patches) of a sample, N those of the whole batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs
import torch

from vlmcollate.errors import CollateError, ConfigError, MediaMismatchError, StrategyError
from vlmcollate.media.memory import empty
from vlmcollate.validators import WithOptions


@attrs.frozen(kw_only=True)
class Join(WithOptions, ABC):
    """Joins the tensors that the samples of a batch hold under one media key.

    The tensors of all samples must have one dtype, which the result has, too. The result is
    contiguous and never shares memory with a sample.

    A join of your own overrides `join` and, if samples without the key get rows, `fill_missing`.
    It needs no decorator if it adds no options.

    Args:
        rows: The unit of the first axis, by which `split_microbatches` cuts a batch: `"image"`,
            `"video"` or `"audio"` for one row per item of that kind; `"sample"` for one row per
            sample; `"samples with image"` and the like for one row per sample that has such media;
            or the key that holds the number of rows per item, such as a grid of patches. `None`
            (the default) if the first axis counts nothing of that; such a batch is never cut.

    Example:
        >>> class Sum(Join):
        ...     def join(self, values, key):
        ...         return torch.stack(list(values)).sum(dim=0)
        >>> Sum()([torch.tensor([1, 2]), torch.tensor([3, 4])], key="counts").tolist()
        [4, 6]
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
            MediaMismatchError: The tensors do not fit together.
            StrategyError: `join` fails in another way, or does not return a tensor of the dtype of
                the samples.
        """
        _check_dtypes(values, key)
        joined = self._joined(values, key).contiguous()
        place = joined.untyped_storage().data_ptr()
        shared = any(value.untyped_storage().data_ptr() == place for value in values)
        return joined.clone() if shared else joined

    def _joined(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """Runs the hook, and names the join and the key if it fails."""
        try:
            joined = self.join(values, key)
        except (CollateError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            shapes = ", ".join(str(tuple(value.shape)) for value in values)
            raise StrategyError(
                f"{type(self).__name__} failed to join {key!r} of shapes {shapes}: "
                f"{type(error).__name__}: {error}; correct the join, or raise a "
                "MediaMismatchError if the tensors do not fit together"
            ) from error
        if not isinstance(joined, torch.Tensor) or joined.dtype != values[0].dtype:
            found = getattr(joined, "dtype", type(joined).__name__)
            raise StrategyError(
                f"{type(self).__name__} returned a wrong result for {key!r}: found {found}, "
                f"expected a tensor of {values[0].dtype}; correct the join"
            )
        return joined

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
            MediaMismatchError: The tensors do not fit together.
        """


@attrs.frozen(kw_only=True, repr=False)
class Concatenate(Join):
    """Concatenates the samples' items: (M, ...) of each becomes (N, ...).

    Args:
        axis: The axis of the concatenation, default the first. With another axis, as for patches of
            (1, channels, height, all patches of a sample), `rows` must be `None`.

    Example:
        >>> Concatenate()([torch.zeros(2, 3), torch.zeros(1, 3)], key="pixel_values").shape
        torch.Size([3, 3])
        >>> patches = [torch.zeros(1, 3, 14, 8), torch.zeros(1, 3, 14, 6)]
        >>> Concatenate(axis=-1)(patches, key="pixel_values").shape
        torch.Size([1, 3, 14, 14])
    """

    axis: int = attrs.field(default=0)

    def __repr__(self) -> str:
        """Leaves out the usual axis."""
        axis = f", axis={self.axis}" if self.axis else ""
        return f"{type(self).__name__}(rows={self.rows!r}{axis})"

    @axis.validator
    def _check_axis(self, _: object, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"axis must be the integer of an axis, not {value!r}")
        if value and self.rows is not None:
            raise ConfigError(
                f"rows={self.rows!r} counts the first axis, but the join concatenates on axis "
                f"{value}; leave out rows"
            )

    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        """See `Join`."""
        _check_has_items(values, key)
        if not -values[0].ndim <= self.axis < values[0].ndim:
            raise MediaMismatchError(
                f"{key!r} of shape {tuple(values[0].shape)} has no axis {self.axis}; declare "
                "another axis for Concatenate"
            )
        _check_shapes(
            values,
            key,
            besides=self.axis % values[0].ndim,
            remedy="join the key with PadAndConcatenate() if the model takes padded tensors, with "
            "Concatenate(axis=...) if another axis differs, or with a Join of your own",
        )
        return _concatenate(values) if not self.axis else torch.cat(list(values), dim=self.axis)


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
        _check_shapes(values, key, besides=None, remedy="bring them to one shape first")
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
                f"{values[0].dtype}; let process_media return one dtype, or cast pixels with "
                'pixels="bfloat16"'
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
    values: Sequence[torch.Tensor], key: str, *, besides: int | None, remedy: str
) -> None:
    """Refuses shapes that differ, except on one axis."""

    def compared(value: torch.Tensor) -> tuple[int, ...]:
        return tuple(size for axis, size in enumerate(value.shape) if axis != besides)

    expected = compared(values[0])
    for position, value in enumerate(values):
        if value.ndim != values[0].ndim or compared(value) != expected:
            agree = "must agree" + ("" if besides is None else f" except on axis {besides}")
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
