"""The fingerprint of a collator is that of its settings, however it came to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.measuring import chat
from tests.processors import BUILDERS, build
from tests.processors.cases import in_turns
from vlmcollate import collator_for
from vlmcollate.data.fingerprint import fingerprint_of

LOADABLE = [name for name in BUILDERS if not name.endswith("stand_in")]


def saved_and_loaded(processor: Any, folder: Path) -> Any:
    processor.save_pretrained(folder)
    return type(processor).from_pretrained(folder)


@pytest.mark.parametrize("name", in_turns(LOADABLE, 2, step=8))
def test_use_and_a_file_change_no_fingerprint(name: str, tmp_path: Path) -> None:
    processor = build(name)
    collate = collator_for(processor)
    before = fingerprint_of(collate)
    collate([chat("image") if collate.supports("image") else chat()])
    assert fingerprint_of(collate) == before
    assert fingerprint_of(collator_for(saved_and_loaded(processor, tmp_path))) == before
