"""Runs the tests with the lowest or the highest versions that the ranges allow, and notes them.

    python scripts/try_versions.py lowest --python python3.10
    python scripts/try_versions.py highest --python python3.13
    python scripts/try_versions.py lowest trainers --python python3.10

The trainers have environments of their own, since TRL needs a newer pyarrow than the library.
Each run has an environment of its own, of several GB. Its result goes into
`docs/reference/compatibility.json`, from which `docs/reference/compatibility.md` is written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/reference/compatibility.json"
PAGE = ROOT / "docs/reference/compatibility.md"
EXTRAS = ("audio", "cli", "object-stores", "prepare", "testing", "video")
RUNS = {"library": EXTRAS, "trainers": ("examples", "ray")}
"""The extras whose versions each run tries, beside those of the core."""
TESTS = {
    "library": (
        *("tests/conformance", "tests/properties", "tests/unit"),
        "--ignore=tests/conformance/test_automodel_wheel.py",  # of a trainer
        "--ignore=tests/unit/preference/test_trainers.py",
        "--ignore=tests/unit/integrations",
    ),
    "trainers": (
        *("tests/examples", "tests/unit/data", "tests/unit/integrations", "tests/unit/mixture"),
        *("tests/unit/pixels", "tests/unit/preference", "tests/conformance/test_finish_pixels.py"),
        *("-m", "ray or not ray"),
    ),
}
HEAD = """# Tested versions

Each column is a run of the tests by `scripts/try_versions.py`, with the lowest or with the highest
versions that the ranges of `pyproject.toml` allow. The runs of the trainers are of the tests that
need the extras `examples` and `ray`, with the newest versions of the other extras. A skipped test
needs a processor or a feature that its transformers or torch does not have, or a package that its
run does not install.

"""
FIRST = ("python", "torch", "transformers")


def requirements(extras: Iterable[str]) -> Iterator[Requirement]:
    """Yields the requirements of the core and of these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    for line in lines:
        requirement = Requirement(line)
        if requirement.name != project["name"]:
            yield requirement


def lowest(requirement: Requirement) -> str:
    """Returns the requirement with the lower end of its range alone.

    Raises:
        ValueError: The range has no lower end.
    """
    ends = [spec.version for spec in requirement.specifier if spec.operator == ">="]
    if not ends:
        raise ValueError(f"{requirement} has no lower end")
    return f"{requirement.name}=={ends[0]}"


def install(python: str, folder: Path, extras: Iterable[str], constraints: Iterable[str]) -> Path:
    """Makes an environment with the library and some extras, and returns its Python."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside, limits = folder / "bin/python", folder / "constraints.txt"
    limits.write_text("\n".join(constraints), "utf-8")
    pip: list[str | Path] = [inside, "-m", "pip", "install", "--quiet", "--constraint", limits]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    others = ["datasets", "num2words", "protobuf", "pytest-xdist", "sentencepiece", "tiktoken"]
    subprocess.run([*pip, f"{ROOT}[{','.join(extras)}]", *others], check=True)
    return inside


def run_tests(python: Path, tests: Iterable[str], *, processes: int) -> dict[str, int]:
    """Runs the tests, and returns how many had each outcome.

    Raises:
        RuntimeError: The run gave no summary.
    """
    # old packages use what others deprecate
    options = ["-q", "-n", str(processes), "-W", "ignore::DeprecationWarning"]
    command: list[str | Path] = [python, "-m", "pytest", *options, *tests]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout[-8000:])
    *_, last = [line for line in done.stdout.splitlines() if " in " in line] or [""]
    found = {name: int(number) for number, name in re.findall(r"(\d+) ([a-z]+)", last)}
    if "passed" not in found:
        raise RuntimeError(f"pytest ended with {done.returncode}, without a summary")
    failed = sum(found.get(name, 0) for name in ("failed", "error", "errors"))
    return {"passed": found["passed"], "failed": failed, "skipped": found.get("skipped", 0)}


def versions(python: Path, extras: Iterable[str]) -> dict[str, str]:
    """Returns the version of Python and of each package of the core and of these extras."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    code = "import platform; print(platform.python_version())"
    number = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    names = {requirement.name for requirement in requirements(extras)}
    found = {one["name"].lower(): one["version"] for one in json.loads(listed.stdout)}
    return {"python": number.stdout.strip(), **{n: found[n] for n in sorted(names & found.keys())}}


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page of the results, with a column for each run."""
    runs = list(results.values())
    packages = {name for run in runs for name in run["versions"]} - {*FIRST}
    rows = [(name, [run["versions"].get(name, "") for run in runs]) for name in FIRST]
    rows += [(name, [run["versions"].get(name, "") for run in runs]) for name in sorted(packages)]
    rows += [
        (f"tests {key}", [f"{run['tests'][key]:,}" for run in runs])
        for key in ("passed", "failed", "skipped")
    ]
    rows += [(key, [run[key] for run in runs]) for key in ("system", "date")]
    lines = [("", list(results)), ("---", ["---"] * len(runs)), *rows]
    return HEAD + "".join(f"| {name} | {' | '.join(cells)} |\n" for name, cells in lines)


def main() -> None:
    """Tries one environment, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", choices=["lowest", "highest"])
    parser.add_argument("tests", choices=[*RUNS], nargs="?", default="library")
    parser.add_argument("--python", default=sys.executable, help="the Python of the environment")
    parser.add_argument("--constraint", action="append", default=[], help="such as torch==2.14.1")
    parser.add_argument("--folder", type=Path, help="where it is made, or found, and kept")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary) / "venv"
        extras = RUNS[asked.tests]
        ends = [*map(lowest, requirements(extras))] if asked.versions == "lowest" else []
        installed = {*EXTRAS, *extras}
        python = install(asked.python, folder, sorted(installed), [*ends, *asked.constraint])
        tests = run_tests(python, TESTS[asked.tests], processes=asked.processes)
        results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        name = asked.versions if asked.tests == "library" else f"{asked.versions}, {asked.tests}"
        results[name] = {
            "versions": versions(python, extras),
            "tests": tests,
            "system": f"{platform.system()} {platform.machine()}",
            "date": datetime.date.today().isoformat(),
        }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    PAGE.write_text(page(results), "utf-8")
    if tests["failed"]:
        sys.exit(f"{tests['failed']} tests failed")


if __name__ == "__main__":
    main()
