"""Locking a folder for one run at a time, and refusing the work of a different run."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vlmcollate.data.interrupting import defer_interrupts
from vlmcollate.data.manifest import MANIFEST, SCHEMA, check_same, plan_text
from vlmcollate.data.writing import OutputFile
from vlmcollate.errors import ConfigError, stack_level

PLAN = "plan.json"
_PARTIAL = re.compile(rf"\.(\d{{6,}}\.arrow|{re.escape(MANIFEST)}|rejected\.jsonl)\.\d+\.part")
"""The names that `partial_file` gives to files while it writes them."""
_OTHERS = {
    "source": "another source",
    "fingerprint": "another collator",
    "options": "other options",
}
"""The description of a difference in each part of a plan."""


@contextmanager
def lock_folder(
    folder: Path, plan: dict[str, Any], *, resume: bool, unverifiable: str
) -> Iterator[None]:
    """Locks a folder for the duration of a run.

    Args:
        folder: The folder; created if it is missing.
        plan: The manifest's `fingerprint`, `source` and `options`. It is written into a new folder,
            and compared with the plan of a folder that holds one.
        resume: Whether to resume an earlier run.
        unverifiable: Why a change of the source would go unnoticed, or "".

    Raises:
        ConfigError: The folder cannot be written, holds other files or a different run, or is
            locked by another run.
    """
    file = folder / PLAN
    shards, plan_file = _open(folder, file)
    with plan_file:
        _lock(plan_file, folder)
        plan_file.seek(0)
        text, ours = plan_file.read(), plan_text(plan)
        if shards or text == ours or not ours.startswith(text):
            _check(text, folder, plan, resume=resume, unverifiable=unverifiable)
        else:  # the folder is empty; an earlier run may have been killed as it wrote its plan
            target = OutputFile(file, plan_file)
            target.write(ours[len(text) :])
            target.sync()
        _remove_partial_files(folder)
        try:
            yield
        finally:
            with defer_interrupts():
                _remove_partial_files(folder)  # of processes that were killed


def _open(folder: Path, file: Path) -> tuple[list[str], Any]:
    """Lists the folder's files but the plan, and opens the plan."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(path.name for path in folder.iterdir() if path.name != PLAN)
        if others and not file.exists():
            raise ConfigError(
                f"'{folder}' holds other files, such as {others[0]!r}; name a new folder"
            )
        return others, file.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(f"cannot write into '{folder}': {error}; name another folder") from error


def _remove_partial_files(folder: Path) -> None:
    with suppress(FileNotFoundError):  # a script that runs again may remove its folder
        for file in folder.iterdir():
            if _PARTIAL.fullmatch(file.name):
                file.unlink(missing_ok=True)


def _lock(file: IO[bytes], folder: Path) -> None:
    """Locks a file until it is closed; the system closes it for a process that dies."""
    try:
        import fcntl  # Windows has no such module

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            f"another run is preparing '{folder}' right now; wait for it, or name another folder"
        ) from error
    except (ImportError, OSError) as error:
        warnings.warn(
            f"'{folder}' cannot be locked ({error}); make sure that no other run writes there",
            stacklevel=stack_level(),
        )


def _check(
    text: bytes, folder: Path, plan: dict[str, Any], *, resume: bool, unverifiable: str
) -> None:
    """Refuses a folder whose run had a different plan."""
    remedy = "Name another folder, or remove this one"
    if not resume:
        raise ConfigError(f"'{folder}' holds an earlier run, and resume is off. {remedy}")
    try:
        earlier = json.loads(text)
        schema, parts = earlier["schema"], [dict(earlier[part]) for part in plan]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"'{folder / PLAN}' is damaged ({error}). {remedy}") from error
    if schema != SCHEMA:
        raise ConfigError(
            f"'{folder}' has the wrong schema: found {schema!r}, expected {SCHEMA}. {remedy}"
        )
    for part, there in zip(plan, parts, strict=True):
        check_same(there, plan[part], f"'{folder}' was begun with {_OTHERS[part]}", remedy)
    if unverifiable:
        raise ConfigError(
            f"'{folder}' holds an earlier run that may be of other rows: {unverifiable}. {remedy}"
        )
