"""Plans of packs lose nothing, overflow nothing, and are as good as best fit itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmcollate import ConfigError, plan_packs
from vlmcollate.errors import SampleTooLongError

LENGTHS = st.lists(st.integers(1, 40), max_size=80)


def _best_fit_decreasing_one_by_one(lengths: list[int], room: int) -> int:
    left: list[int] = []
    for length in sorted(lengths, reverse=True):
        best = min((r for r in left if r >= length), default=None)
        if best is None:
            left.append(room - length)
        else:
            left[left.index(best)] -= length
    return len(left)


@given(lengths=LENGTHS, room=st.integers(40, 100))
def test_every_sample_is_in_one_pack(lengths: list[int], room: int) -> None:
    plan = plan_packs(lengths, max_length=room)
    assert sorted(plan.samples.tolist()) == list(range(len(lengths)))
    assert [pack.tolist() for pack in plan] == [plan[i].tolist() for i in range(len(plan))]
    assert all(1 <= np.asarray(lengths)[pack].sum() <= room for pack in plan)
    assert len(plan) == _best_fit_decreasing_one_by_one(lengths, room)
    assert plan.fill == pytest.approx(sum(lengths) / (len(plan) * room) if lengths else 1.0)


@given(lengths=LENGTHS, room=st.integers(1, 40))
def test_what_does_not_fit_is_told(lengths: list[int], room: int) -> None:
    overlong = [i for i, length in enumerate(lengths) if length > room]
    dropped = plan_packs(lengths, max_length=room, on_overlong="drop")
    own = plan_packs(lengths, max_length=room, on_overlong="own_pack")
    assert dropped.overlong.tolist() == own.overlong.tolist() == overlong
    assert sorted([*dropped.samples.tolist(), *overlong]) == list(range(len(lengths)))
    assert sorted(own.samples.tolist()) == list(range(len(lengths)))
    assert all(len(pack) == 1 for pack in own if set(pack.tolist()) & set(overlong))
    if overlong:
        with pytest.raises(SampleTooLongError) as caught:
            plan_packs(lengths, max_length=room)
        assert caught.value.index == overlong[0]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1), st.integers(1, 4))
def test_media_is_balanced_over_ranks(samples: list[tuple[int, int]], ranks: int) -> None:
    lengths, media = zip(*samples, strict=True)
    plan = plan_packs(lengths, max_length=60, media_tokens=media, num_ranks=ranks)
    assert sorted(plan.samples.tolist()) == list(range(len(lengths)))
    weights = [int(np.asarray(media)[pack].sum()) for pack in plan]
    steps = [weights[i : i + ranks] for i in range(0, len(weights), ranks)]
    for step, following in zip(steps, steps[1:], strict=False):
        assert min(step) >= max(following)  # so a step's packs are as alike as they can be


def test_bad_options_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"max_length": 0},
        {"max_length": 2.5},
        {"max_length": "8"},
        {"max_length": None},
        {"max_length": True},
        {"max_length": 8, "on_overlong": "cut"},
        {"max_length": 8, "num_ranks": 4},
        {"max_length": 8, "num_ranks": 2.5, "media_tokens": [1]},
        {"max_length": 8, "media_tokens": 5},
        {"max_length": 8, "media_tokens": [0.5]},
    ]
    for options in bad:
        with pytest.raises(ConfigError):
            plan_packs([1], **options)
    for lengths in ([1.9], ["a"], [[1]], 3):
        with pytest.raises(ConfigError, match="lengths must hold one whole number"):
            plan_packs(lengths, max_length=8)  # type: ignore[arg-type]  # likewise
    with pytest.raises(ConfigError, match="lengths must fit into int64, found 9223372036854775808"):
        plan_packs([2**63], max_length=8)
    with pytest.raises(ConfigError, match="media_tokens"):
        plan_packs([1, 2], max_length=8, media_tokens=[1])
    with pytest.raises(ConfigError, match="found 0 for sample 1"):
        plan_packs([1, 0], max_length=8)


def test_a_plan_is_sliced_as_a_list() -> None:
    plan = plan_packs([3, 5, 2, 7], max_length=8)
    assert [pack.tolist() for pack in plan[::-1]] == [[2], [0, 1], [3]]
    with pytest.raises(IndexError):
        plan[3]
