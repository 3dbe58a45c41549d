"""The rows and the checkpoint with which the real trainers are tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.media_bytes import video_bytes
from vlmcollate.testing import tiny_model, tiny_processor


def write_rows(folder: Path, number: int = 24) -> Path:
    """Writes JSON Lines, whose rows hold an image, a video or text alone in turn."""
    Image.new("RGB", (56, 56), "teal").save(folder / "teal.png")
    (folder / "clip.mkv").write_bytes(video_bytes([0.0, 0.5, 1.0, 1.5]))
    path = folder / "rows.jsonl"
    lines = (json.dumps(_row(folder, i)) for i in range(number))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _row(folder: Path, i: int) -> dict[str, Any]:
    tag = ("<image>", "<video>", "")[i % 3]
    return {
        "messages": [
            {"role": "user", "content": f"{tag}Which colour has number {i}?"},
            {"role": "assistant", "content": "Teal." + " Yes." * (i % 5)},
        ],
        "images": [str(folder / "teal.png")] if tag == "<image>" else [],
        "videos": [str(folder / "clip.mkv")] if tag == "<video>" else [],
    }


def save_checkpoint(folder: Path, family: str = "qwen2_5_vl") -> Any:
    """Saves a tiny model and its processor, which it returns."""
    processor = tiny_processor(family)
    processor.save_pretrained(folder)
    tiny_model(processor).save_pretrained(folder)
    return processor
