"""The package's public names, each of which is imported at first access."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vlmcollate
from tests.forking import run_in_fresh_package

HEAVY = """
import sys
heavy = {"numpy", "pyarrow", "torch", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_the_package_imports_nothing_heavy():
    code = f"import vlmcollate\ndir(vlmcollate)\n{HEAVY}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr


def test_public_names_are_there_after_a_plain_import():
    run_in_fresh_package("import vlmcollate\nassert callable(vlmcollate.collator_for)")
    run_in_fresh_package("import vlmcollate\nassert callable(vlmcollate.data.prepare_dataset)")


def test_a_star_import_gives_every_public_name():
    run_in_fresh_package(
        "from vlmcollate import *\nimport vlmcollate\n"
        "missing = set(vlmcollate.__all__) - set(globals())\nassert not missing, missing"
    )


@pytest.mark.parametrize("name", vlmcollate.__all__)
def test_a_public_name_resolves_and_is_listed(name):
    assert getattr(vlmcollate, name) is not None
    assert name in dir(vlmcollate)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'vlmcollate' has no attribute 'collate_for'"):
        vlmcollate.collate_for  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'collate_for'"):
        from vlmcollate import collate_for  # type: ignore[attr-defined]  # noqa: F401


def test_type_checkers_see_the_names_that_are_imported():
    """The imports for type checkers, the table for run time and `__all__` agree."""
    tree = ast.parse(Path(vlmcollate.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and not node.orelse and isinstance(node.test, ast.Name)
    )
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"vlmcollate.{module}" for name, module in vlmcollate._MODULE_OF.items()}
    assert sorted(seen) == sorted(vlmcollate.__all__)
    assert len(vlmcollate.__all__) == len(set(vlmcollate.__all__))
