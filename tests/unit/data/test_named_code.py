"""What the code of a function names counts, wherever it lies, and what it keeps does not."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from vlmcollate.data.code_names import origin_of
from vlmcollate.data.content_hash import content_hash

HELPERS = "def choose(text): return {condition}\n"
USES = {
    "of a module": "import helpers\ndef pick(text): return helpers.choose(text)",
    "of a package": "from ownpkg import inner\ndef pick(text): return inner.choose(text)",
    "of a subpackage": "import ownpkg.inner\ndef pick(text): return ownpkg.inner.choose(text)",
    "of a sibling": "from helpers import choose\ndef pick(text): return choose(text)",
    "imported inside": """
        def pick(text):
            from ownpkg.inner import choose
            return choose(text)
        """,
    "imported inside as a module": """
        def pick(text):
            from ownpkg import inner
            return inner.choose(text)
        """,
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
    "dispatched": """
        import functools
        @functools.singledispatch
        def choose(text): return False
        @choose.register
        def _(text: str): return {condition}
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
    "an instance": """
        class Rule:
            def __init__(self, words): self.words = words
            def __call__(self, text): return text in self.words
        RULE = Rule({words})
        def pick(text): return RULE(text)
        """,
    "an instance with slots": """
        import threading
        class Rule:
            __slots__ = "words"
            def __init__(self, words): self.words = words
        RULE = Rule({words})
        def pick(text): return text in RULE.words
        """,
    "an instance with a lock": """
        import threading
        class Rule:
            def __init__(self, words): self.words, self.lock = words, threading.Lock()
        RULE = Rule({words})
        def pick(text): return text in RULE.words
        """,
    "a namespace": """
        from types import SimpleNamespace
        CONFIG = SimpleNamespace(inner=SimpleNamespace(words={words}))
        def pick(text): return text in CONFIG.inner.words
        """,
    "a dataclass": """
        from dataclasses import dataclass
        @dataclass
        class Config: words: list
        CONFIG = Config({words})
        def pick(text): return text in CONFIG.words
        """,
    "an attrs class": """
        import attrs
        @attrs.frozen
        class Config: words: list
        CONFIG = Config({words})
        def pick(text): return text in CONFIG.words
        """,
    "a named tuple": """
        from typing import NamedTuple
        class Config(NamedTuple):
            words: list
            def has(self, text): return {condition}
        CONFIG = Config([])
        def pick(text): return CONFIG.has(text)
        """,
    "an enumeration": """
        import enum
        class Word(enum.Enum): YES = {words}
        def pick(text): return text in Word.YES.value
        """,
    "a member": """
        import enum
        class Word(enum.Enum):
            YES = "yes"
            def has(self, text): return {condition}
        WORD = Word.YES
        def pick(text): return WORD.has(text)
        """,
    "a dictionary of functions": """
        def choose(text): return {condition}
        RULES = {{"first": [choose]}}
        def pick(text): return RULES["first"][0](text)
        """,
    "a registry": """
        RULES = {{}}
        def rule(function): RULES[function.__name__] = function; return function
        @rule
        def choose(text): return {condition}
        def pick(text): return RULES["choose"](text)
        """,
    "a partial": """
        from functools import partial
        def choose(words, text): return text in words
        CHOOSE = partial(choose, {words})
        def pick(text): return CHOOSE(text)
        """,
    "a bound method": """
        import re
        FIND = re.compile("|".join({words})).fullmatch
        def pick(text): return bool(FIND(text))
        """,
    "an array": """
        import numpy as np
        WORDS = np.array({words})
        def pick(text): return text in WORDS
        """,
    "a default dictionary": """
        from collections import defaultdict
        WORDS = defaultdict(lambda: {words})
        def pick(text): return text in WORDS.get("of", WORDS.default_factory())
        """,
    "a base class": """
        from ownpkg.inner import Base
        class Rule(Base): pass
        RULE = Rule()
        def pick(text): return RULE(text)
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


KEEPS = """
    import collections, functools, itertools, logging, os, random, threading, weakref
    from os import environ
    import numpy as np
    CACHE, COUNTS, SEEN, LAST, NAMES, TEXTS = {{}}, {{"a": 0}}, [], 1, {{"a": "b"}}, set()
    LOCK, LOCAL, RANDOM, LOG = threading.Lock(), threading.local(), random.Random(), logging.root
    NUMBERS, FILE = itertools.count(), open(os.devnull)
    DATA = [str(i) * {{1: 1}}.get(hash("a"), 1) for i in range(20_000)]
    LARGE = np.zeros((200, 200))
    ALIVE = weakref.WeakValueDictionary()
    class Rule:
        def __init__(self): self.word, self.log, self.lock = "yes", LOG, LOCK
        @functools.cached_property
        def half(self): return self.word[:2]
    RULE = Rule()
    KEY, BOTH, PAIR = "a", {{"calls": 0, "words": ["yes"]}}, [0, "yes"]
    PAIRS = zip("ab" * 9, "ab" * 9)
    @functools.lru_cache
    def kept(text): return text
    @functools.singledispatch
    def shown(text): return text
    def pick(text):
        global LAST
        LAST = text
        CACHE[text] = kept(text)
        CACHE.setdefault("b", text)
        COUNTS[KEY] += 1
        BOTH["calls"] += 1
        PAIR[0] = next(PAIRS)
        SEEN.append(shown(text))
        TEXTS.add(text)
        ALIVE[text] = RULE
        LOCAL.text = text
        LARGE[0, 0] += 1
        with LOCK:
            return RULE.half in text and next(NUMBERS) >= 0 and RANDOM.random() >= 0 and (
                not FILE.closed and environ is not None and len(DATA) > 1 and {condition}
            ) and NAMES[KEY] == "b" and LOG and BOTH["words"] and PAIR[1]
    pick({words}[0])
"""


def test_what_code_keeps_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "once", KEEPS, 0)
    monkeypatch.syspath_prepend(tmp_path / "once")
    module = load(tmp_path / "once")
    try:
        before = content_hash(module.pick)
        assert module.pick("yes")
        assert content_hash(module.pick) == before
        for name, value in {  # which it only reads
            "NAMES": {"a": "c"},
            "KEY": "b",
            "BOTH": {**module.BOTH, "words": ["no"]},
            "PAIR": [module.PAIR[0], "no"],
        }.items():
            with monkeypatch.context() as patched:
                patched.setattr(module, name, value)
                assert content_hash(module.pick) != before, name
        code = (
            "import rules_of_one\nfrom vlmcollate.data.content_hash import content_hash\n"
            "rules_of_one.pick('yesno'); print(content_hash(rules_of_one.pick))"
        )
        run = partial(subprocess.run, capture_output=True, text=True, check=True, timeout=120)
        for seed in ("1", "2"):
            path = os.pathsep.join([str(tmp_path / "once"), *sys.path])
            changes = {"PYTHONHASHSEED": seed, "PYTHONPATH": path, "A_TEST": seed}
            done = run([sys.executable, "-c", code], env={**os.environ, **changes})
            assert done.stdout.strip() == before
    finally:
        module.FILE.close()


@pytest.mark.parametrize("is_same", [True, False])
def test_code_of_an_installed_package_counts_inside_that_package(
    is_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    use = "from ownpkg.inner import choose\ndef pick(text): return choose(text)"
    found = []
    for version in (0, 1):
        write(folder / str(version), use, version)
        (folder / str(version) / "ownpkg" / "rules.py").write_text(use)
        (tmp_path / "rules_of_one.py").write_text(use)
        (folder / str(version) / "rules_of_one.py").unlink()
        with monkeypatch.context() as patched:
            patched.syspath_prepend(folder / str(version))
            patched.syspath_prepend(tmp_path)
            module = load(tmp_path)
            assert origin_of("ownpkg.inner") == "installed"
            if is_same:
                sys.modules.pop("ownpkg.rules", None)
                module = importlib.import_module("ownpkg.rules")
            found.append(content_hash(module.pick))
    assert (found[0] != found[1]) == is_same


def test_the_origin_of_a_module_is_that_of_its_file() -> None:
    assert [origin_of(name) for name in ("json", "sys", "torch.nn", "vlmcollate.data")] == (
        ["library"] * 4
    )
    assert origin_of("pytest") == "installed"
    assert origin_of(__name__) == origin_of("__main__of_a_notebook") == "own"
