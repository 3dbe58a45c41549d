"""The page of tested versions is that of its data, whose lowest versions the ranges begin with."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/try_versions.py"))
RUNS = SCRIPT["RUNS"]
NAMES = {
    (ends, run): ends if run == "library" else f"{ends}, {run}"
    for ends in ("lowest", "highest")
    for run in RUNS
}
RESULTS = json.loads(SCRIPT["RESULTS"].read_text("utf-8"))


def test_the_page_is_that_of_the_data():
    assert SCRIPT["PAGE"].read_text("utf-8") == SCRIPT["page"](RESULTS)


@pytest.mark.parametrize("run", RUNS)
def test_the_lowest_versions_are_the_lower_ends_of_the_ranges(run):
    """A range that changes needs another run: `python scripts/try_versions.py lowest`."""
    ends = map(Requirement, map(SCRIPT["lowest"], SCRIPT["requirements"](RUNS[run])))
    tried = dict(RESULTS[NAMES["lowest", run]]["versions"])
    assert tried.pop("python").startswith("3.10.")
    found = {end.name: end.specifier.contains(tried.get(end.name, "0")) for end in ends}
    assert found == dict.fromkeys(tried, True)


@pytest.mark.parametrize(("ends", "run"), NAMES)
def test_every_test_passed_with_versions_of_the_ranges(ends, run):
    result = RESULTS[NAMES[ends, run]]
    tests, versions = result["tests"], result["versions"]
    assert tests["passed"] > (4000 if run == "library" else 500)
    assert tests["failed"] == 0
    for requirement in SCRIPT["requirements"](RUNS[run]):
        assert Version(versions[requirement.name]) in requirement.specifier


def test_the_pages_of_installation_name_the_ranges():
    needs = {need.name: SCRIPT["lowest"](need) for need in SCRIPT["requirements"](())}
    for page in ("README.md", "docs/index.md"):
        text = (ROOT / page).read_text("utf-8")
        for name in ("torch", "transformers"):
            assert needs[name].replace("==", " ") in text
