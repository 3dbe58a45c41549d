"""The Python examples of the docs run, page by page, and print what the page shows."""

import html
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import NIGHTLY
from tests.measuring import page
from vlmcollate.cli.families import support_table
from vlmcollate.testing import check_collator

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("docs/**/*.md"))
BLOCK = re.compile(
    r'^```python\n(.*?)^```(?:\n\n```text title="Output"\n(.*?)^```)?', re.MULTILINE | re.DOTALL
)
MASK = re.compile(r'^<pre class="mask"[^>]*>(.*?)^</pre>', re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=lambda p: p.stem
)
def test_examples_run(page, monkeypatch, capsys):
    monkeypatch.setattr("vlmcollate.models.COLLATORS", {**_collators()})
    if not NIGHTLY:  # the laws take most of the time
        few = partial(_check_on_one_example, check_collator)
        monkeypatch.setattr("vlmcollate.testing.check_collator", few)
    module = ModuleType("__main__")  # where pickle looks for the page's classes
    monkeypatch.setitem(sys.modules, "__main__", module)
    names = vars(module)
    text = page.read_text()
    for code, output in BLOCK.findall(text):
        exec(compile(code, str(page), "exec"), names)  # noqa: S102 - our own pages
        printed = capsys.readouterr().out
        assert not output or printed == output
    for mask in MASK.findall(text):
        marked = re.sub(r"</?mark>", lambda tag: "]]" if "/" in tag.group() else "[[", mask)
        shown = html.unescape(re.sub(r"<[^>]+>", "", marked))
        _, _, explained = str(names["collate"].explain(names["example"])).partition("\n")
        assert shown.rstrip() == explained.rstrip()


def _check_on_one_example(check, collator, *, examples, **options):
    assert examples > 0
    return check(collator, examples=1, **options)


def _collators():
    from vlmcollate.models import COLLATORS

    return COLLATORS


def test_the_readme_example_is_python():
    """It needs a download, so it is compiled and not run; the tutorial runs the same calls."""
    ((block, _),) = BLOCK.findall((ROOT / "README.md").read_text())
    assert "collator_for(processor, max_length=4096" in block
    compile(block, "README.md", "exec")


def test_the_readme_has_exactly_two_set_up_commands():
    commands = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert [command.count("\n") for command in commands] == [1, 1]


def test_the_table_of_families_is_that_of_the_data():
    shown = (ROOT / "docs/reference/families.md").read_text(encoding="utf-8")
    assert shown == page(support_table()), "run scripts/write_families_table.py"
