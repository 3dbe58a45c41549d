"""Values of other content have other hashes, and equal ones have one in every process."""

from __future__ import annotations

import enum
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from vlmcollate.data.content_hash import content_hash, is_plain

WORDS = {"yes", "no"}


def keeps(word: str) -> Callable[[str], bool]:
    return lambda text: word in text


def by_default(word: str) -> Callable[[str], bool]:
    def keep(text: str, *, word: str = word) -> bool:
        return word in text

    return keep


def of_a_global(text: str) -> bool:
    return text in WORDS


def through_another(text: str) -> bool:
    return of_a_global(text)


class Keeper:
    limit = 1

    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, text: str) -> bool:
        return self.word in text

    @property
    def length(self) -> int:
        return len(self.word)

    @cached_property
    def half(self) -> int:
        return self.length // 2

    @classmethod
    def other(cls) -> Keeper:
        return cls("other")


class LowerKeeper(Keeper):
    limit = 2


@attrs.frozen
class Slotted:
    word: str


class Kind(enum.IntEnum):
    ONE = 1


def image(color: str) -> Image.Image:
    return Image.new("RGB", (2, 2), color)


def itself() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


UNLIKE: list[Callable[[], Any]] = [
    *(
        lambda: None,
        lambda: True,
        lambda: 1,
        lambda: 1.0,
        lambda: "1",
        lambda: b"1",
        lambda: "\ud800",
    ),
    *(lambda: [1], lambda: [[1]], lambda: [1, 2], lambda: {1}, lambda: {1: 2}, lambda: {2: 1}),
    *(lambda: ["a", "bc"], lambda: ["ab", "c"], itself, lambda: Path("a"), lambda: re.compile("a")),
    *(lambda: keeps("a"), lambda: keeps("b"), lambda: by_default("a"), lambda: by_default("b")),
    *(lambda: Keeper("a"), lambda: Keeper("b"), lambda: LowerKeeper("a"), lambda: Keeper),
    *(lambda: Keeper("a").__call__, lambda: Keeper("b").__call__, lambda: LowerKeeper),
    *(lambda: partial(keeps, "a"), lambda: partial(keeps, "b"), lambda: partial(keeps, word="a")),
    *(lambda: Slotted("a"), lambda: Slotted("b"), lambda: lambda t: [u for u in t if u > "a"]),
    lambda: lambda t: [u for u in t if u > "b"],
    *(lambda: torch.tensor([0.5]), lambda: torch.tensor([0.5 + 1e-7]), lambda: torch.zeros(2, 1)),
    *(lambda: np.zeros(2), lambda: np.zeros(2, np.float32), lambda: torch.zeros(1, 2)),
    *(lambda: np.array(["a", None]), lambda: image("red"), lambda: image("blue")),
    *(lambda: of_a_global, lambda: through_another, lambda: len, lambda: re, lambda: np.sum),
]


def test_unlike_values_have_unlike_hashes() -> None:
    hashes = [content_hash(make()) for make in UNLIKE]
    for a, b in combinations(range(len(hashes)), 2):
        assert hashes[a] != hashes[b], (a, b)
    assert hashes == [content_hash(make()) for make in UNLIKE]  # of other objects


def test_equal_settings_have_one_hash() -> None:
    assert content_hash((1, 2)) == content_hash([1, 2])  # as after a file of JSON
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash(Kind.ONE) == content_hash(1)
    assert content_hash(threading.Lock()) == content_hash(threading.Lock())
    shared = [1]
    assert content_hash([shared, shared]) == content_hash([[1], [1]])


@pytest.mark.parametrize("function", [of_a_global, through_another])
def test_what_a_function_refers_to_counts(
    function: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_hash(function)
    monkeypatch.setitem(globals(), "WORDS", {"yes"})
    assert content_hash(function) != before


def test_what_a_class_holds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = LowerKeeper("a")
    before = content_hash(keeper)
    assert (keeper.half, keeper.length) == (0, 1)  # which sets no attribute of the class
    del keeper.half
    assert content_hash(keeper) == before
    for name, value in {
        "limit": 3,
        "length": property(lambda keeper: len(keeper.word) + 1),
        "other": classmethod(lambda cls: cls("another")),
    }.items():
        with monkeypatch.context() as patched:
            patched.setattr(Keeper, name, value)
            assert content_hash(keeper) != before, name


def test_the_data_that_a_function_refers_to_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for word in ("yes", "no"):
        for data in ([word] * 20_000, [[word] * 9_000 for _ in range(20)]):
            monkeypatch.setitem(globals(), "WORDS", data)
            hashes.add(content_hash(of_a_global))
    assert len(hashes) == 1


@pytest.mark.parametrize("seed", ["1", "2"])
def test_every_process_has_the_same_hash(seed: str) -> None:
    names = "keeps('a')", "Keeper('a')", "of_a_global", "{'a', 'b', 'c'}"
    makes = f"lambda t: t in {{'a', 'b', 'c'}}, {', '.join(names)}"
    code = (
        "from tests.unit.data.test_content_hash import *\n"
        f"print(*(content_hash(value) for value in ({makes})))"
    )
    run = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=120)
    found = run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
    values = (lambda t: t in {"a", "b", "c"}, *map(eval, names))  # those above
    assert found.stdout.split() == [content_hash(value) for value in values]


def test_only_what_shows_all_of_itself_is_plain() -> None:
    assert is_plain([1, ("a", None)])
    assert not any(map(is_plain, (Kind.ONE, {"a"}, keeps("a"), [keeps("a")], np.float64(1))))


def quantized(scale: float) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will remove them
        return torch.quantize_per_tensor(torch.ones(2), scale, 0, torch.quint8)


def test_tensors_without_bytes_have_a_hash() -> None:
    makes: list[Callable[[], torch.Tensor]] = [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.zeros(2, 2).to_sparse(),
        lambda: torch.empty(2, 2, device="meta"),
        lambda: torch.empty(3, 2, device="meta"),
        *(partial(quantized, 0.5), partial(quantized, 0.25)),
    ]
    hashes = [content_hash(make()) for make in makes]
    assert len({*hashes}) == len(makes)
    assert hashes == [content_hash(make()) for make in makes]


def test_a_property_that_is_computed_once_changes_no_hash() -> None:
    class Lazy:
        @cached_property
        def words(self) -> set[str]:
            return {"yes"}

    for value in (Lazy(), Keeper("a")):
        before = content_hash(value)
        assert value.words if isinstance(value, Lazy) else value.half == 0
        assert content_hash(value) == before


def test_how_a_function_takes_arguments_counts() -> None:
    assert content_hash(lambda m: m) != content_hash(lambda *m: m)
