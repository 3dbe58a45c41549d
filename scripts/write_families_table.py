"""Collates with every processor class, and writes the table of families and its docs page."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Writes vlmcollate/cli/families.json and docs/reference/families.md."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported
    sys.path.insert(0, str(ROOT))
    import attrs
    import transformers

    from tests.measuring import measure, page
    from tests.processors.cases import CASES
    from vlmcollate.cli.families import SupportTable

    transformers.logging.set_verbosity_error()
    rows = []
    for name in sorted(CASES, key=str.lower):
        rows.append(measure(name, CASES[name]).row)
        print(f"{name}: {rows[-1].support} ({', '.join(rows[-1].media) or 'no media'})")
    table = SupportTable(transformers.__version__, tuple(rows))
    data = json.dumps(attrs.asdict(table), indent=1) + "\n"
    (ROOT / "vlmcollate/cli/families.json").write_text(data, encoding="utf-8")
    target = ROOT / "docs/reference/families.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
