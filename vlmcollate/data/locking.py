"""One run at a time in a folder, and only what was begun there."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vlmcollate.data.interrupting import uninterrupted
from vlmcollate.data.manifest import MANIFEST, SCHEMA, check_same, plan_text
from vlmcollate.data.writing import OutputFile
from vlmcollate.errors import ConfigError, stack_level

PLAN = "plan.json"
_OURS = re.compile(rf"\.(\d{{6,}}\.parquet|{re.escape(MANIFEST)})\.\d+\.part")
"""What `partial_file` calls a file that is being written."""


@contextmanager
def claimed(folder: Path, plan: dict[str, Any], *, resume: bool, unsure: str) -> Iterator[None]:
    """Takes a folder for a run, as long as it lasts.

    Args:
        folder: The folder; made where it is missing.
        plan: The manifest's `fingerprint`, `source` and `options`, which are written down, or found
            to be what is being done there.
        resume: Whether to go on with an earlier run.
        unsure: Why a change of the source would go unnoticed, or "".

    Raises:
        ConfigError: The folder cannot be written, holds other files or another run, or a run that
            is still going on.
    """
    file = folder / PLAN
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if path.name != PLAN)
        if others and not file.exists():
            raise ConfigError(
                f"'{folder}' holds other files, such as {others[0]!r}; name a new one"
            )
        held: Any = file.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(f"cannot write into '{folder}': {error}; name another folder") from error
    with held:
        _lock(held, folder)
        held.seek(0)
        text, ours = held.read(), plan_text(plan)
        if others or text == ours or not ours.startswith(text):
            _check(text, folder, plan, resume=resume, unsure=unsure)
        else:  # nothing was done yet; a run may have been killed as it wrote its plan
            target = OutputFile(file, held)
            target.write(ours[len(text) :])
            target.sync()
        _remove_halves(folder)
        try:
            yield
        finally:
            with uninterrupted():
                _remove_halves(folder)  # of processes that were killed


def _remove_halves(folder: Path) -> None:
    for file in folder.iterdir():
        if _OURS.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _lock(file: IO[bytes], folder: Path) -> None:
    """Holds the file until it is closed, which the system does for a process that dies."""
    try:
        import fcntl  # where there is none, as on Windows, the user has to see to it

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"another run is preparing '{folder}' right now; wait for it, or name another folder"
        ) from error
    except (ImportError, OSError) as error:
        warnings.warn(
            f"'{folder}' cannot be locked ({error}); see to it that no other run writes there",
            stacklevel=stack_level(),
        )


def _check(text: bytes, folder: Path, plan: dict[str, Any], *, resume: bool, unsure: str) -> None:
    """Refuses what was begun otherwise."""
    mend = "Name another folder, or remove this one"
    if not resume:
        raise ConfigError(f"'{folder}' holds an earlier run, and resume is off. {mend}")
    try:
        earlier = json.loads(text)
        schema, parts = earlier["schema"], [dict(earlier[part]) for part in plan]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"'{folder / PLAN}' is damaged ({error}). {mend}") from error
    if schema != SCHEMA:
        raise ConfigError(
            f"'{folder}' was begun with schema {schema!r}, this vlmcollate writes {SCHEMA}. {mend}"
        )
    names = {
        "source": "another source",
        "fingerprint": "another collator",
        "options": "other options",
    }
    for part, there in zip(plan, parts, strict=True):
        check_same(there, plan[part], f"'{folder}' was begun with {names[part]}", mend)
    if unsure:
        raise ConfigError(
            f"'{folder}' holds an earlier run, and whether it was of these rows is not known: "
            f"{unsure}. {mend}"
        )
