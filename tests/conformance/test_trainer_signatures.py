"""The adapters of trainers override and return what the trainers' sources call and read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.assets import trainers_dir

INTEGRATIONS = Path(__file__).parents[2] / "vlmcollate" / "integrations"
OVERRIDES = {
    "energon": ("CollatorTaskEncoder", "megatron/energon/task_encoder/base.py", "TaskEncoder"),
    "axolotl": ("CollatorPlugin", "axolotl/integrations/base.py", "BasePlugin"),
    "ms_swift": ("CollatorTemplate", "swift/template/base.py", "Template"),
    "verl": (
        "CollatorDataset",
        "verl/utils/dataset/multiturn_sft_dataset.py",
        "MultiTurnSFTDataset",
    ),
}
EXPECTED = {
    "energon": {
        "encode_sample",
        "select_samples_to_pack",
        "pack_selected_samples",
        "batch",
        "build_batch",
    },
    "axolotl": {"get_input_args", "register", "get_collator_cls_and_kwargs"},
    "ms_swift": {"init_processor", "_encode_truncated", "_data_collator"},
    "verl": {"__init__", "__len__", "__getitem__"},
}
OWN_CONSTRUCTORS = {"energon"}
"""Adapters that their users construct, with parameters of their own."""


def _class(path: Path, name: str) -> ast.ClassDef:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (found,) = (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)
    return found


def _methods(node: ast.ClassDef) -> dict[str, ast.arguments]:
    return {n.name: n.args for n in node.body if isinstance(n, ast.FunctionDef)}


def _accepts(ours: ast.arguments, theirs: ast.arguments) -> bool:
    """Returns whether every call that theirs takes binds to ours as well."""
    named = [a.arg for a in ours.args]
    positions = [a.arg for a in theirs.args]
    keywords = {a.arg for a in theirs.kwonlyargs}
    taken = {*named, *(a.arg for a in ours.kwonlyargs)}
    optional = len(theirs.args) - len(theirs.defaults)
    required = len(ours.args) - len(ours.defaults)
    return (
        named[: len(positions)] == positions
        and required <= optional
        and (ours.kwarg is not None or keywords <= taken)
    )


@pytest.mark.parametrize("name", OVERRIDES)
def test_overrides_take_the_arguments_of_the_trainer(name):
    adapter, file, base = OVERRIDES[name]
    ours = _methods(_class(INTEGRATIONS / f"{name}.py", adapter))
    theirs = _methods(_class(trainers_dir() / file, base))
    shared = {*ours} & {*theirs} - ({"__init__"} if name in OWN_CONSTRUCTORS else set())
    assert shared == EXPECTED[name]
    for method in shared - {"__getitem__"}:  # the name of its argument is never used
        assert _accepts(ours[method], theirs[method]), method


def test_a_method_with_other_arguments_is_found():
    def arguments(signature):
        (function,) = ast.parse(f"def f({signature}): ...").body
        return function.args  # type: ignore[attr-defined]

    theirs = arguments("self, batch, *, padding_to=None")
    assert _accepts(arguments("self, batch, *, padding_to=None"), theirs)
    assert _accepts(arguments("self, batch, **options"), theirs)
    assert not _accepts(arguments("self, batch"), theirs)
    assert not _accepts(arguments("self, rows, *, padding_to=None"), theirs)
    assert not _accepts(arguments("self, batch, extra, *, padding_to=None"), theirs)


def test_axolotl_calls_the_function_with_its_tokenizer():
    source = (trainers_dir() / "axolotl/core/builders/causal.py").read_text(encoding="utf-8")
    (build,) = (
        n
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.FunctionDef) and n.name == "build_collator"
    )
    text = ast.unparse(build)
    assert "collator_args = [self.tokenizer]" in text
    assert "kwargs.update(collator_cls_and_kwargs[1])" in text
    assert text.endswith("return collator(*collator_args, **kwargs)")


def test_ms_swift_constructs_the_template_with_its_description():
    fields = {
        n.target.id
        for n in _class(trainers_dir() / "swift/template/template_meta.py", "TemplateMeta").body
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    given = {"template_type", "prefix", "prompt", "chat_sep", "suffix", "template_cls"}
    assert given <= fields
    assert "options" not in fields


def test_verl_reads_the_keys_of_a_sample_without_padding():
    file = trainers_dir() / OVERRIDES["verl"][1]
    (getitem,) = (
        n
        for n in _class(file, "MultiTurnSFTDataset").body
        if isinstance(n, ast.FunctionDef) and n.name == "__getitem__"
    )
    returned = [n for n in ast.walk(getitem) if isinstance(n, ast.Dict) and len(n.keys) == 3]
    keys = {k.value for n in returned for k in n.keys if isinstance(k, ast.Constant)}
    assert keys == {"input_ids", "position_ids", "loss_mask"}
    assert 'res["multi_modal_inputs"]' in file.read_text(encoding="utf-8")
    trainer = (trainers_dir() / "verl/trainer/sft_trainer.py").read_text(encoding="utf-8")
    call = "parquet_files=data_paths, tokenizer=tokenizer, config=data_config, processor=processor"
    assert call in trainer
