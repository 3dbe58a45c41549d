"""The tables of options are those of the collators."""

import re
from pathlib import Path

import attrs

from vlmcollate import BaseCollator
from vlmcollate.models import COLLATORS

PAGE = (Path(__file__).parents[2] / "docs/reference/collators.md").read_text(encoding="utf-8")
OPTIONS, _, OF_FAMILIES = PAGE.partition("### Options of single families")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \|", re.MULTILINE)


def test_every_option_is_listed_with_its_default():
    listed = {name: default for name, _, default in ROW.findall(OPTIONS)}
    fields = [field for field in attrs.fields(BaseCollator) if field.name != "processor"]
    assert listed == {field.name: f"`{_default(field)}`" for field in fields}


def test_every_option_of_a_family_is_listed():
    common = {field.name for field in attrs.fields(BaseCollator)}
    listed = {name: re.findall(r"`(\w+)`", collators) for name, collators, _ in _rows(OF_FAMILIES)}
    found: dict[str, list[str]] = {}
    for collator in {*COLLATORS.values()}:
        for field in attrs.fields(collator):
            if field.name not in common:
                found.setdefault(field.name, []).append(collator.__name__)
    assert {name: sorted(names) for name, names in found.items()} == listed


def _rows(text):
    return ROW.findall(text.partition("## Example formats")[0])


def _default(field):
    if not hasattr(field.default, "factory"):
        return repr(field.default).replace("'", '"')
    value = field.default.factory()
    return repr(value) if isinstance(value, dict) else f"{type(value).__name__}()"
