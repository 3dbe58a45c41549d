"""What scripts/fetch_test_assets.py fetches: tokenizers, chat templates, sources of trainers."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest


def _asset(name: str) -> Path:
    default = Path.home() / ".cache" / "vlmcollate-test-assets"
    path = Path(os.environ.get("VLMCOLLATE_TEST_ASSETS", default)) / name
    if not path.exists():
        pytest.skip(f"{path} is missing; run scripts/fetch_test_assets.py", allow_module_level=True)
    return path


def tokenizer_dir(name: str) -> Path:
    """The folder of a tokenizer; skips the test where it is missing."""
    return _asset(name)


def tokenizer_dir_without_unused(name: str) -> Path:
    """The folder of a tokenizer without its added tokens `<unused0>` and so on.

    Gemma 3 has 6,242 of them, which make every example five times slower. The vocabulary, and so
    the ids of all text, stay the same. The folder is made beside the tokenizer's own, once.
    """
    source = _asset(name)
    target = source.with_name(f"{name}_without_unused")
    if target.exists():
        return target
    made = Path(tempfile.mkdtemp(dir=source.parent))
    facts = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    facts["added_tokens"] = [t for t in facts["added_tokens"] if "<unused" not in t["content"]]
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["added_tokens_decoder"] = {
        i: token
        for i, token in config["added_tokens_decoder"].items()
        if "<unused" not in token["content"]
    }
    (made / "tokenizer.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    (made / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        made.rename(target)
    except OSError:  # another worker was first
        shutil.rmtree(made)
    return target


def automodel_dir() -> Path:
    """The folder that holds the package nemo_automodel; skips the test where it is missing."""
    return _asset("automodel")


def trainers_dir() -> Path:
    """The folder of the trainers' files; skips the test where it is missing."""
    return _asset("trainers")


def chat_template(name: str) -> str:
    """The text of a chat template; skips the test where it is missing."""
    return _asset(f"templates/{name}.jinja").read_text(encoding="utf-8")


def chat_templates(asset: str) -> dict[str, str]:
    """The texts of all templates of an asset by name; skips the test where it is missing."""
    files = sorted(_asset(asset).glob("*.jinja"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}
