"""The other process in which a pickled copy is tried."""

from __future__ import annotations

import os
import pickle
import sys
from types import ModuleType

import attrs
import pytest

from tests.unit.testing.with_process_id import WithProcessId
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.testing import LAWS, check_collator, tiny_processor
from vlmcollate.testing.another_process import AnotherProcess, another_process, tensors_of

LAW = [law for law in LAWS if law.__name__ == "check_a_pickled_copy_agrees"]


def _defined_in(monkeypatch, name):
    """A collator of a class that this process alone knows by the name of a module."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    made = type("Known", (Qwen2_5_VLCollator,), {"__module__": name})
    module.Known = attrs.frozen(kw_only=True, eq=False)(made)  # type: ignore[attr-defined]  # it is new
    return module.Known(processor=tiny_processor())


def test_it_answers_under_another_hash_seed():
    with another_process() as process:
        assert process.load(pickle.dumps(WithProcessId())).outcome == "returned"
        one, two = process.collate(["one"]), process.collate(["two"])
        raised = process.collate(["raise"])
    assert (
        one.tensors.keys()
        == tensors_of(WithProcessId()(["one"])).keys()
        == {"hashed", "masks.full"}
    )
    pid, hashed = one.tensors["hashed"].tolist()
    assert pid != os.getpid()
    assert hashed != hash("a word")
    assert two.tensors["hashed"].tolist() == [pid, hashed]
    assert (raised.outcome, raised.problem) == ("raised", "ValueError: no such example")


def test_blocks_share_it():
    with another_process() as outer, another_process() as inner:
        assert outer is inner


def test_one_that_ended_is_replaced_and_close_ends_it():
    process = AnotherProcess()
    process.close()
    process.load(pickle.dumps(WithProcessId()))
    assert "the process ended" in process.collate(["end"]).problem
    assert process.load(pickle.dumps(WithProcessId())).outcome == "returned"
    pid = int(process.collate(["one"]).tensors["hashed"][0])
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("module", "status", "words"),
    [
        ("__main__", "not applicable", "Known is defined in __main__"),
        ("known_here", "failed", "ModuleNotFoundError: No module named 'known_here'"),
    ],
)
def test_a_class_has_to_be_found_by_name(monkeypatch, module, status, words):
    collator = _defined_in(monkeypatch, module)
    (result,) = check_collator(collator, laws=LAW, examples=1, raise_on_failure=False).results
    assert result.status == status
    assert words in result.message


def test_a_class_of_a_function_cannot_be_pickled():
    @attrs.frozen(kw_only=True, eq=False)
    class Local(Qwen2_5_VLCollator):
        """Has no name that can be imported."""

    collator = Local(processor=tiny_processor())
    (result,) = check_collator(collator, laws=LAW, examples=1, raise_on_failure=False).results
    assert result.message.startswith("Local cannot be pickled")
    assert "at the top level of a module" in result.message
