"""Collates with every chat template that a package carries, and writes its docs page."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Writes docs/reference/templates.md."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    sys.path.insert(0, str(ROOT))
    import transformers

    from tests.template_corpus import measure, page, templates

    transformers.logging.set_verbosity_error()
    rows = [measure(name, text) for name, text in templates().items()]
    (ROOT / "docs/reference/templates.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
