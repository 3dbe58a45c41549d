"""What the code of a function names of one's own code counts, and nothing is imported for that."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import FunctionType, ModuleType
from typing import Any

import pytest

from vlmcollate.data.content_hash import content_hash

HELPERS = "def choose(text): return {condition}\n"
USES = {
    "of a module": "import helpers\ndef pick(text): return helpers.choose(text)",
    "of a package": "from ownpkg import inner\ndef pick(text): return inner.choose(text)",
    "of a subpackage": "import ownpkg.inner\ndef pick(text): return ownpkg.inner.choose(text)",
    "of a sibling": "from helpers import choose\ndef pick(text): return choose(text)",
    "cached": """
        import functools
        @functools.lru_cache
        def choose(text): return {condition}
        def pick(text): return choose(text)
        """,
    "cached itself": """
        import functools
        @functools.cache
        def pick(text): return {condition}
        """,
    "wrapped": """
        import functools
        def logged(function):
            @functools.wraps(function)
            def call(*args): return function(*args)
            return call
        @logged
        def choose(text): return {condition}
        def pick(text): return choose(text)
        """,
    "a context": """
        from contextlib import contextmanager
        @contextmanager
        def choice(text): yield {condition}
        def pick(text):
            with choice(text) as found: return found
        """,
    "without gradients": """
        import torch
        @torch.no_grad()
        def choose(text): return {condition}
        def pick(text): return choose(text)
        """,
    "of a nested class": """
        class Rule:
            class Inner:
                @staticmethod
                def choose(text): return {condition}
            def __call__(self, text): return self.Inner.choose(text)
        pick = Rule()
        """,
    "of a cached method": """
        import functools
        class Rule:
            @staticmethod
            @functools.lru_cache
            def choose(text): return {condition}
            def __call__(self, text): return self.choose(text)
        pick = Rule()
        """,
    "a partial": """
        from functools import partial
        def choose(words, text): return text in words
        CHOOSE = partial(choose, {words})
        def pick(text): return CHOOSE(text)
        """,
    "a callable that wraps": """
        import functools
        class Memo:
            def __init__(self, function):
                functools.update_wrapper(self, function)
                self.calls = 0
            def __call__(self, *args):
                self.calls += 1
                return self.__wrapped__(*args)
        @Memo
        def choose(text): return {condition}
        def pick(text): return choose(text)
        """,
    "a default of an attrs class": """
        import attrs
        @attrs.frozen
        class Rule:
            words: list = attrs.field(factory=lambda: {words})
        def pick(text): return text in Rule().words
        """,
    "a default of a dataclass": """
        from dataclasses import dataclass, field
        @dataclass(frozen=True)
        class Rule:
            words: list = field(default_factory=lambda: {words})
        def pick(text): return text in Rule().words
        """,
    "a base class": """
        from ownpkg.inner import Base
        class Rule(Base): pass
        pick = Rule()
        """,
    "two in a circle": """
        def choose(text, again=True): return pick(text) if again else {condition}
        def pick(text): return choose(text, again=False)
        """,
    "a long chain": "\n".join(
        [
            *(f"def f{i}(text): return f{i + 1}(text)" for i in range(400)),
            "def f400(text): return {condition}",
            "pick = f0",
        ]
    ),
}
run = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=120)
CONDITIONS = ("True", '["yes", "no"]'), ('text == "yes"', '["yes"]')


def write(folder: Path, use: str, version: int) -> None:
    condition, words = CONDITIONS[version]
    helpers = HELPERS.format(condition=condition)
    base = f"class Base:\n    def __call__(self, text): return {condition}\n"
    (folder / "ownpkg").mkdir(parents=True)
    (folder / "ownpkg" / "__init__.py").touch()
    (folder / "ownpkg" / "inner.py").write_text(helpers + base)
    (folder / "helpers.py").write_text(helpers)
    (folder / "rules_of_one.py").write_text(dedent(use).format(condition=condition, words=words))


def load(folder: Path) -> ModuleType:
    for name in ("ownpkg", "ownpkg.inner", "helpers", "rules_of_one"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module("rules_of_one")


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_what_a_function_names_counts(
    use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for folder, version in (("a", 0), ("b", 0), ("c", 1)):
        write(tmp_path / folder, use, version)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(tmp_path / folder)
            pick = load(tmp_path / folder).pick
            before = content_hash(pick)
            assert (pick("yes"), pick("no")) == (True, version == 0)
            assert content_hash(pick) == before  # after use
            found.append(before)
    assert found[0] == found[1] != found[2]


UNSTABLE = """
    import attrs, functools, os
    from os import environ
    import a_lazy_module
    DATA = [os.urandom(1)] * 20_000
    class Kept:
        @functools.cached_property
        def words(self): return {words}
    @attrs.frozen
    class Rule:
        kept: Kept
        def __call__(self, text): return text in self.kept.words and len(DATA) > 1 and environ
    pick = Rule(Kept())
    def reads(text):
        import an_unknown_module
        return a_lazy_module.words
"""


def test_every_process_has_the_same_hash_before_and_after_use(tmp_path: Path) -> None:
    write(tmp_path, UNSTABLE, 0)
    (tmp_path / "an_unknown_module.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a_lazy_module.py").write_text("raise SystemExit('loaded')")
    code = """
        import sys
        from importlib.util import LazyLoader, find_spec, module_from_spec
        spec = find_spec("a_lazy_module")
        spec.loader = LazyLoader(spec.loader)
        lazy = sys.modules["a_lazy_module"] = module_from_spec(spec)
        spec.loader.exec_module(lazy)
        import rules_of_one
        from vlmcollate.data.content_hash import content_hash
        print(content_hash(rules_of_one.pick), content_hash(rules_of_one.reads))
        rules_of_one.pick("yes")
        print(content_hash(rules_of_one.pick), content_hash(rules_of_one.reads))
    """
    found = set()
    for seed in ("1", "2"):
        path = os.pathsep.join([str(tmp_path), *sys.path])
        done = run(
            [sys.executable, "-c", dedent(code)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path, "A_TEST": seed},
        )
        found |= {*done.stdout.splitlines()}
    assert len(found) == 1


@pytest.mark.parametrize("is_same", [True, False])
def test_code_of_an_installed_package_counts_inside_that_package(
    is_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    use = "from ownpkg.inner import choose\ndef pick(text): return choose(text)"
    found = []
    for version in (0, 1):
        write(folder / str(version) / "site-packages", use, version)
        inside = folder / str(version) / "site-packages" / "ownpkg" / "rules_of_one.py"
        inside.write_text(use)
        with monkeypatch.context() as patched:
            patched.syspath_prepend(folder / str(version) / "site-packages")
            module = load(tmp_path)
            if is_same:
                sys.modules.pop("ownpkg.rules_of_one", None)
                module = importlib.import_module("ownpkg.rules_of_one")
            found.append(content_hash(module.pick))
    assert (found[0] != found[1]) == is_same


def test_a_script_and_a_module_run_with_m_have_siblings(tmp_path: Path) -> None:
    script = """
        from ownpkg import inner
        import helpers
        from vlmcollate.data.content_hash import content_hash
        def pick(text): return helpers.choose(text)
        def other(text): return inner.choose(text)
        print(content_hash(pick), content_hash(other))
    """
    found: dict[str, list[list[str]]] = {"beside": [], "inside": []}
    for version in (0, 1):
        folder = tmp_path / str(version)
        write(folder, "", version)
        for place in (folder / "run.py", folder / "ownpkg" / "run.py"):
            place.write_text(dedent(script))
        for kind, args in {"beside": ["run.py"], "inside": ["-m", "ownpkg.run"]}.items():
            path = os.pathsep.join([str(folder), *sys.path])
            changed = {**os.environ, "PYTHONPATH": path}
            done = run([sys.executable, *args], env=changed, cwd=folder)
            found[kind].append(done.stdout.split())
    a, b = found["beside"]
    assert a[0] != b[0] and a[1] != b[1]
    a, b = found["inside"]
    assert a[0] == b[0] and a[1] != b[1]  # other modules of its package, and none beside that


def through_two(text: str) -> list[Any]:
    """Has other globals in each module of a test."""
    return [near.pick(text), far.pick(text), LIMIT]  # type: ignore[name-defined]  # noqa: F821


def test_a_graph_of_modules_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scopes = [ModuleType(f"own_graph_{i}") for i in range(300)]
    for i, module in enumerate(scopes):
        monkeypatch.setitem(sys.modules, module.__name__, module)
        near, far = scopes[(i + 1) % 300], scopes[(i * 7 + 3) % 300]
        file = str(tmp_path / f"{module.__name__}.py")
        vars(module).update(__file__=file, near=near, far=far, LIMIT=i)
        vars(module)["pick"] = FunctionType(through_two.__code__, vars(module))
        module.pick.__module__ = module.__name__
    before = content_hash(scopes[0].pick)
    assert content_hash(scopes[0].pick) == before
    vars(scopes[150])["LIMIT"] = -1
    assert content_hash(scopes[0].pick) != before
