"""Checks, builds and tags a release; uploads nothing.

    python scripts/release.py --rehearse   # builds and checks what HEAD would release
    python scripts/release.py              # also asks for a dated changelog, and tags HEAD

Needs `build` and `twine`, of the extra `dev`. The commands that publish the result are printed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEVER_SHIPPED = re.compile(r"(^|/)(\.ci|\.git|__pycache__|\.venv)(/|$)|\.pyc$")


class ReleaseError(Exception):
    """Why nothing was released."""


def run(command: Sequence[str | Path], *, cwd: Path = ROOT) -> str:
    """Runs a command, and returns what it printed."""
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        shown = " ".join(map(str, command))
        raise ReleaseError(f"`{shown}` failed with {done.returncode}:\n{done.stdout}")
    return done.stdout.strip()


def version() -> str:
    """Returns the version in `pyproject.toml`, which the citation file has to share."""
    (found,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.M)
    if found != cited:
        raise ReleaseError(f"CITATION.cff has version {cited}, pyproject.toml {found}; set both")
    return str(found)


def notes_of(number: str, *, dated: bool) -> str:
    """Returns the section of the changelog on a version."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    when = r"\d{4}-\d{2}-\d{2}" if dated else r"(?:\d{4}-\d{2}-\d{2}|unreleased)"
    head = rf"^## {re.escape(number)} - {when}\n"
    found = re.search(head + r"(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None or not found[1].strip():
        raise ReleaseError(
            f"CHANGELOG.md has no section '## {number} - YYYY-MM-DD' with text; add it"
        )
    return found[1].strip()


def check_tree(number: str) -> None:
    """Refuses a working tree that differs from HEAD, and a version that has a tag."""
    if changed := run(["git", "status", "--porcelain"]):
        raise ReleaseError(f"the working tree differs from HEAD; commit or stash:\n{changed}")
    if run(["git", "tag", "--list", f"v{number}"]):
        raise ReleaseError(f"the tag v{number} exists; raise the version")


def build(folder: Path) -> list[Path]:
    """Builds the source distribution of HEAD and, from it, the wheel."""
    source = folder / "source"
    source.mkdir()
    run(["git", "archive", "--output", folder / "source.tar", "HEAD"])
    with tarfile.open(folder / "source.tar") as archive:
        archive.extractall(source, filter="data")
    run([sys.executable, "-m", "build", "--outdir", folder / "dist", source])
    built = sorted((folder / "dist").iterdir())
    run([sys.executable, "-m", "twine", "check", "--strict", *built])
    return built


def check_files(built: Sequence[Path], number: str) -> None:
    """Refuses distributions with files that nobody installs, or with other metadata."""
    for path in built:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                names = wheel.namelist()
                (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
                check_metadata(wheel.read(about).decode("utf-8"), number)
        else:
            with tarfile.open(path) as archive:
                names = archive.getnames()
        if stray := [name for name in names if NEVER_SHIPPED.search(name)]:
            raise ReleaseError(f"{path.name} holds {', '.join(stray[:5])}; exclude them")


def check_metadata(text: str, number: str) -> None:
    """Refuses metadata without what an index shows."""
    found = HeaderParser().parsestr(text)
    if found["Version"] != number:
        raise ReleaseError(f"the wheel has version {found['Version']}, expected {number}")
    needed = ("Name", "Summary", "License-Expression", "Requires-Python", "Description")
    if missing := [name for name in needed if not (found[name] or found.get_payload())]:
        raise ReleaseError(f"the wheel's metadata lacks {', '.join(missing)}")
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", str(found.get_payload()))
    if found["Project-URL"] is None and links:
        print(f"note: {len(links)} links of the README lead to files, which an index does not have")


def main() -> None:
    """Releases HEAD, or says why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="check and build, but do not tag")
    parser.add_argument("--out", type=Path, help="where the distributions are written")
    asked = parser.parse_args()
    number = version()
    notes = notes_of(number, dated=not asked.rehearse)
    check_tree(number)
    with tempfile.TemporaryDirectory() as temporary:
        built = build(Path(temporary))
        check_files(built, number)
        out = asked.out or ROOT / "dist"
        out.mkdir(parents=True, exist_ok=True)
        kept = [Path(shutil.copy(path, out)) for path in built]
    print("\n".join(f"built {path}" for path in kept))
    if asked.rehearse:
        return
    run(["git", "tag", "--annotate", f"v{number}", "--message", f"vlmcollate {number}\n\n{notes}"])
    print(f"tagged v{number}; to publish it:")
    print(f"  git push origin v{number}")
    print(f"  python -m twine upload {' '.join(map(str, kept))}")


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as error:
        sys.exit(f"error: {error}")
