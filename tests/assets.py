"""What scripts/fetch_test_assets.py fetches: tokenizers, chat templates, NeMo Automodel."""

from __future__ import annotations

import os
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


def automodel_dir() -> Path:
    """The folder that holds the package nemo_automodel; skips the test where it is missing."""
    return _asset("automodel")


def chat_template(name: str) -> str:
    """The text of a chat template; skips the test where it is missing."""
    return _asset(f"templates/{name}.jinja").read_text(encoding="utf-8")
