"""Counts the files of the library that one warm `encode` passes, and the moves between them.

A move is a call or a return that leads from one file of the library to another. Run
`python -m benchmarks.moves`; it exits 1 if a limit is exceeded.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL import Image

import vlmcollate
from vlmcollate import BaseCollator, collator_for
from vlmcollate.testing import tiny_processor

_ROOT = str(Path(vlmcollate.__file__).parent)
_LIMITS = {"text": (12, 60), "image": (17, 90)}


def passed_files(collator: BaseCollator, example: object) -> list[str]:
    """Returns the file of each call and return inside the library, without repetitions in a row.

    Args:
        collator: The collator, which has encoded an example of this kind before.
        example: The example to encode.
    """
    files: list[str] = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "return":  # the move leads to the caller
            name = frame.f_back.f_code.co_filename if frame.f_back else ""
        if event in ("call", "return") and name.startswith(_ROOT):
            short = name.removeprefix(_ROOT).lstrip("/")
            if not files or files[-1] != short:
                files.append(short)

    sys.setprofile(look)
    try:
        collator.encode(example)
    finally:
        sys.setprofile(None)
    return files


def main() -> int:
    """Prints a line per kind of example, and the moves themselves with `--verbose`."""
    torch.set_num_threads(1)
    collator = collator_for(tiny_processor())
    image = Image.new("RGB", (640, 480), "navy")
    question: dict[str, list[dict[str, Any]]] = {
        "text": [{"type": "text", "text": "What is it?"}],
        "image": [{"type": "image", "image": image}, {"type": "text", "text": "What is it?"}],
    }
    exceeded = False
    for kind, parts in question.items():
        example = [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": "A cat."},
        ]
        for _ in range(3):
            collator.encode(example)
        files = passed_files(collator, example)
        if "--verbose" in sys.argv:
            print("\n".join(files))
        found = len(set(files)), len(files) - 1
        limit = _LIMITS[kind]
        exceeded |= found[0] > limit[0] or found[1] > limit[1]
        print(f"{kind}: {found[0]} files (at most {limit[0]}), {found[1]} moves ({limit[1]})")
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
