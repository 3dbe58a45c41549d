"""Joining the media tensors of several samples."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from vlmcollate.errors import ConfigError, MediaMismatchError, StrategyError
from vlmcollate.media import Concatenate, Join, PadAndConcatenate, Stack

JOINS = [Concatenate(), PadAndConcatenate(), Stack()]


def test_concatenate_keeps_the_order_of_items() -> None:
    joined = Concatenate()([torch.tensor([[1, 2]]), torch.tensor([[3, 4], [5, 6]])], key="grid")
    assert joined.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert joined.dtype == torch.int64


def test_concatenate_takes_samples_without_items() -> None:
    joined = Concatenate()([torch.zeros(0, 3), torch.ones(1, 3)], key="pixel_values")
    assert joined.tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool])
def test_empty_tensors_join(join: Join, dtype: torch.dtype) -> None:
    joined = join([torch.zeros(0, 3, dtype=dtype)] * 2, key="pixel_values")
    assert joined.numel() == 0
    assert joined.dtype == dtype
    assert joined.shape[-1] == 3


def test_concatenate_names_the_key_and_the_shapes_that_differ() -> None:
    with pytest.raises(MediaMismatchError) as caught:
        Concatenate()([torch.zeros(2, 3), torch.zeros(1, 4)], key="pixel_values")
    message = str(caught.value)
    for part in ("pixel_values", "(1, 4)", "(2, 3)", "tensor 1", "PadAndConcatenate"):
        assert part in message


def test_pad_and_concatenate_pads_every_later_axis_at_its_end() -> None:
    first = torch.tensor([[[1, 2, 3]]], dtype=torch.int32)
    second = torch.tensor([[[4], [5]], [[6], [7]]], dtype=torch.int32)
    joined = PadAndConcatenate(value=9)([first, second], key="mask")
    assert joined.tolist() == [
        [[1, 2, 3], [9, 9, 9]],
        [[4, 9, 9], [5, 9, 9]],
        [[6, 9, 9], [7, 9, 9]],
    ]
    assert joined.dtype == torch.int32


def test_pad_and_concatenate_with_equal_shapes_pads_nothing() -> None:
    joined = PadAndConcatenate(value=9)([torch.zeros(1, 2), torch.ones(1, 2)], key="mask")
    assert joined.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_pad_and_concatenate_keeps_bool_and_bfloat16() -> None:
    mask = PadAndConcatenate()(
        [torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)], key="mask"
    )
    assert mask.tolist() == [[True, True], [True, False]]
    values = [torch.ones(1, size, dtype=torch.bfloat16) for size in (1, 2)]
    assert PadAndConcatenate(value=-1.0)(values, key="v").tolist() == [[1.0, -1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (torch.int64, 0.5),
        (torch.uint8, -1),
        (torch.uint8, 256),
        (torch.bool, 2),
        (torch.int64, float("nan")),
        (torch.int64, float("inf")),
    ],
)
def test_pad_and_concatenate_refuses_a_value_that_the_dtype_cannot_hold(
    dtype: torch.dtype, value: float
) -> None:
    values = [torch.ones(1, size, dtype=dtype) for size in (1, 2)]
    with pytest.raises(MediaMismatchError, match="cannot hold"):
        PadAndConcatenate(value=value)(values, key="mask")


def test_pad_and_concatenate_refuses_another_number_of_axes() -> None:
    with pytest.raises(MediaMismatchError, match="number of axes"):
        PadAndConcatenate()([torch.zeros(1, 2), torch.zeros(1, 2, 2)], key="mask")


def test_pad_and_concatenate_refuses_a_value_that_is_not_a_number() -> None:
    with pytest.raises(ConfigError, match="value must be a number"):
        PadAndConcatenate(value="0")  # type: ignore[arg-type]  # the mistake under test


def test_stack_makes_a_new_first_axis() -> None:
    joined = Stack()([torch.tensor([1, 2]), torch.tensor([3, 4])], key="size")
    assert joined.tolist() == [[1, 2], [3, 4]]
    assert Stack()([torch.tensor(1.0), torch.tensor(2.0)], key="rate").tolist() == [1.0, 2.0]


def test_stack_refuses_shapes_that_differ() -> None:
    with pytest.raises(MediaMismatchError, match=r"'size'.*\(2,\).*\(1,\)"):
        Stack()([torch.zeros(1), torch.zeros(2)], key="size")


@pytest.mark.parametrize("join", JOINS)
def test_every_join_refuses_mixed_dtypes(join: Join) -> None:
    values = [torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bfloat16)]
    with pytest.raises(MediaMismatchError, match=r"bfloat16.*float32"):
        join(values, key="pixel_values")


@pytest.mark.parametrize("join", JOINS)
def test_every_join_refuses_nothing_to_join(join: Join) -> None:
    with pytest.raises(MediaMismatchError, match="pixel_values"):
        join([], key="pixel_values")


@pytest.mark.parametrize("join", [Concatenate(), PadAndConcatenate()])
def test_scalars_have_no_axis_to_concatenate_on(join: Join) -> None:
    with pytest.raises(MediaMismatchError, match=r"Stack\(\)"):
        join([torch.tensor(1.0)], key="rate")


@pytest.mark.parametrize("join", JOINS)
def test_the_result_is_contiguous_and_does_not_share_memory(join: Join) -> None:
    value = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    joined = join([value], key="pixel_values")
    assert joined.is_contiguous()
    joined += 1
    assert value.sum().item() == 0


@pytest.mark.parametrize("join", JOINS)
def test_joins_are_values(join: Join) -> None:
    assert pickle.loads(pickle.dumps(join)) == join
    with pytest.raises(AttributeError):
        join.value = 1  # type: ignore[attr-defined]  # frozen


def test_concatenate_joins_along_another_axis() -> None:
    values = [torch.arange(4.0).reshape(1, 2, 2), torch.arange(6.0).reshape(1, 2, 3)]
    joined = Concatenate(axis=-1)(values, key="pixel_values")
    assert joined.tolist() == [[[0, 1, 0, 1, 2], [2, 3, 3, 4, 5]]]
    with pytest.raises(MediaMismatchError, match=r"must agree except on axis 2"):
        Concatenate(axis=-1)([*values, torch.zeros(1, 3, 3)], key="pixel_values")
    with pytest.raises(MediaMismatchError, match="has no axis 3"):
        Concatenate(axis=3)(values, key="pixel_values")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"axis": 1, "rows": "image"}, "rows='image' counts the first axis"),
        ({"axis": "1"}, "axis must be the integer"),
        ({"axis": True}, "axis must be the integer"),
    ],
)
def test_an_axis_that_cannot_be_joined_is_refused(options: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Concatenate(**options)


class _CatsUnequal(Join):
    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        return torch.cat(list(values))


class _ReturnsAList(Join):
    def join(self, values: Sequence[torch.Tensor], key: str) -> Any:
        return list(values)


class _Casts(Join):
    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        return values[0].double()


class _Refuses(Join):
    def join(self, values: Sequence[torch.Tensor], key: str) -> torch.Tensor:
        raise MediaMismatchError("these do not fit together")


@pytest.mark.parametrize(
    ("join", "problem"),
    [
        (_CatsUnequal(), r"_CatsUnequal failed to join 'pixels' of shapes \(1, 2\), \(1, 3\)"),
        (_ReturnsAList(), "_ReturnsAList returned a wrong result for 'pixels': found list"),
        (_Casts(), "found torch.float64, expected a tensor of torch.float32"),
    ],
)
def test_a_join_that_fails_is_named_with_its_key(join: Join, problem: str) -> None:
    with pytest.raises(StrategyError, match=problem):
        join([torch.zeros(1, 2), torch.zeros(1, 3)], key="pixels")


def test_a_join_may_refuse_its_tensors() -> None:
    with pytest.raises(MediaMismatchError, match="do not fit together"):
        _Refuses()([torch.zeros(1)], key="pixels")
