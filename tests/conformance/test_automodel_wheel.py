"""NeMo Automodel's functions beside the wheel's own: by signature, and by result if it is right."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import inspect
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.assets import automodel_dir
from tests.conformance.test_automodel import EXAMPLES, TONE, built, chat, talk
from tests.processors import processor_of
from vlmcollate import automodel

WRITTEN_FOR = "0.7.0"
MODULES = {
    "collate": "components.datasets.vlm.collate_fns",
    "fake": "components.datasets.vlm.fake_image",
    "dspark": "components.datasets.vlm.dspark_collate",
    "datasets": "components.datasets.vlm.datasets",
    "packing": "components.datasets.vlm.neat_packing_vlm",
    "samplers": "components.datasets.vlm.samplers",
    "audio": "components.datasets.audio.collate_fns",
    "contracts": "components.datasets.packing",
}
NOT_OURS = {  # facts of its own environment
    "HAVE_QWEN_VL_UTILS",
    "HAVE_QWEN_OMNI_UTILS",
}
ADDED = {"template_kwargs", "attention_mask", "collator_options"}


@pytest.fixture(scope="module")
def wheel() -> Iterator[Any]:
    """The modules of the wheel: the installed one, or else the one that was fetched."""
    path = []
    try:
        importlib.metadata.version("nemo-automodel")
    except importlib.metadata.PackageNotFoundError:
        path = [str(automodel_dir())]
    known = set(sys.modules)
    sys.path[:0] = path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = importlib.metadata.version("nemo-automodel")
            if found != WRITTEN_FOR:
                pytest.fail(
                    f"these tests were written for nemo-automodel {WRITTEN_FOR}, and {found} is "
                    "installed; read its changes, adapt vlmcollate.automodel and the table in "
                    "docs/how-to/automodel.md, and then WRITTEN_FOR"
                )
            yield SimpleNamespace(
                **{
                    name: importlib.import_module(f"nemo_automodel.{module}")
                    for name, module in MODULES.items()
                }
            )
    finally:
        for entry in path:
            sys.path.remove(entry)
        for name in set(sys.modules) - known:
            if name.startswith("nemo_automodel"):
                del sys.modules[name]


@pytest.fixture
def qwen() -> Iterator[Any]:
    """Qwen2.5-VL's processor, padding on the right."""
    processor = processor_of("qwen2_5_vl")
    side = processor.tokenizer.padding_side
    processor.tokenizer.padding_side = "right"
    yield processor
    processor.tokenizer.padding_side = side


def examples() -> list[dict[str, Any]]:
    return copy.deepcopy(EXAMPLES)


def assert_same(ours: Any, theirs: Any, *, but: tuple[str, ...] = ()) -> None:
    """Ours has all that theirs has, to the dtype, but for some keys, and maybe more counts."""
    theirs = {k: v for k, v in theirs.items() if v is not None and k not in but}
    more = {key for key in ours if not key.startswith("n_")} - theirs.keys() - set(but)
    assert not more
    for key, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert ours[key].dtype == value.dtype, key
            assert torch.equal(ours[key], value), key
        elif isinstance(value, list):
            assert len(ours[key]) == len(value), key
            for a, b in zip(ours[key], value, strict=True):
                assert torch.equal(torch.as_tensor(a), torch.as_tensor(b)), key
        else:
            assert ours[key] == value, key


def parameters(function: Any) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def assert_takes_the_same(ours: Any, theirs: Any) -> None:
    """The same parameters in the same order, and more only by keyword, all of which say nothing."""
    expected = parameters(theirs)
    added = ADDED - {p.name for p in expected}
    found = [p for p in parameters(ours) if p.name not in added]
    assert [p.name for p in found] == [p.name for p in expected]
    for a, b in zip(found, expected, strict=True):
        assert a.kind == b.kind
        if "contract" in type(b.default).__name__.lower():
            assert a.default.packed_mask_type == b.default.packed_mask_type
        else:
            assert a.default == b.default
    for extra in (p for p in parameters(ours) if p.name in added):
        assert extra.kind is inspect.Parameter.KEYWORD_ONLY
        assert extra.default is None


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.8.0")
    with pytest.raises(pytest.fail.Exception, match=r"written for nemo-automodel 0\.7\.0, and 0.8"):
        next(wheel.__wrapped__())  # type: ignore[attr-defined]  # a fixture's function


def test_every_name_of_the_module_is_there(wheel: Any) -> None:
    module = wheel.collate
    for name, value in vars(module).items():
        is_own = inspect.isfunction(value) and value.__module__ == module.__name__
        if is_own:
            assert_takes_the_same(getattr(automodel, name), value)
        elif name.lstrip("_").isupper() and name not in NOT_OURS:
            assert hasattr(automodel, name), name
    assert automodel.COLLATE_FNS.keys() == module.COLLATE_FNS.keys()
    for name, function in automodel.COLLATE_FNS.items():
        assert function.__name__ == module.COLLATE_FNS[name].__name__
    for name in (
        "_GEMMA4_MODEL_TURN",
        "_GEMMA4_THINKING_PREFIX",
        "_IMSTART_TEMPLATE_PROCESSORS",
        "_DEFAULT_MERGE_KERNEL",
    ):
        assert getattr(automodel, name) == getattr(module, name)
    assert set(module._TOKEN_AXIS_KEYS) <= set(automodel._TOKEN_AXIS_KEYS)


OTHERS = {
    "fake": (
        "_batch_has_media",
        "_conversation_has_media",
        "inject_fake_image_into_conversation",
        "mask_fake_vision_tokens_batch",
        "mask_fake_vision_tokens_single",
    ),
    "dspark": ("dspark_vlm_collate_fn", "build_dspark_vlm_dataloader"),
    "audio": ("qwen3_omni_asr_collate_fn", "qwen2_5_omni_asr_collate_fn"),
    "contracts": ("resolve_packing_contract", "build_packed_sequence_metadata"),
    "packing": ("neat_pack_dataset_vlm",),
}
CLASSES = {
    "datasets": ("PreTokenizedDatasetWrapper", "RobustDatasetWrapper"),
    "packing": ("PackedDatasetWrapper",),
    "samplers": ("LengthGroupedSampler",),
}


def test_the_other_modules_names_are_there(wheel: Any) -> None:
    for module, names in OTHERS.items():
        for name in names:
            assert_takes_the_same(getattr(automodel, name), getattr(getattr(wheel, module), name))
    for module, names in CLASSES.items():
        for name in names:
            ours, theirs = getattr(automodel, name), getattr(getattr(wheel, module), name)
            assert_takes_the_same(ours.__init__, theirs.__init__)
            for method in ("robust_collate", "set_epoch"):
                assert hasattr(ours, method) == hasattr(theirs, method)
    for module, name in (
        ("datasets", "PreTokenizedDatasetWrapperConfig"),
        ("packing", "PackedDatasetWrapperConfig"),
    ):
        ours, theirs = getattr(automodel, name), getattr(getattr(wheel, module), name)
        assert_takes_the_same(ours.build, theirs.build)
        for parameter in parameters(theirs.__init__):
            assert inspect.signature(ours).parameters[parameter.name].default == parameter.default


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_batches_are_the_same(wheel: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = processor_of(name)
    monkeypatch.setattr(processor.tokenizer, "padding_side", "right")
    monkeypatch.setattr(wheel.dspark, "HAVE_QWEN_VL_UTILS", True)
    for function, options in (
        ("default_collate_fn", {}),
        ("default_collate_fn", {"max_length": 128}),
        ("default_collate_fn", {"max_length": 128, "drop_overlong": True}),
        ("default_collate_fn", {"_post_tokenize_hook": lambda batch, _: batch}),
        ("qwen2_5_collate_fn", {}),
        ("llava_onevision_collate_fn", {}),
    ):
        ours, theirs = getattr(automodel, function), getattr(wheel.collate, function)
        assert_same(
            ours(examples(), processor, **options), theirs(examples(), processor, **options)
        )
    for fake in (True, False):
        assert_same(
            automodel.dspark_vlm_collate_fn(examples(), processor, 128, fake),
            wheel.dspark.dspark_vlm_collate_fn(examples(), processor, 128, fake),
        )


def test_fake_images_of_the_wrapper_are_masked_alike(wheel: Any, qwen: Any) -> None:
    wrappers = [module.RobustDatasetWrapper(examples()) for module in (automodel, wheel.datasets)]
    for wrapper in wrappers:
        wrapper.preload_media, wrapper.processor = True, qwen
    ours, theirs = ([wrapper[i] for i in range(3)] for wrapper in wrappers)
    for collate, other in (
        (automodel.default_collate_fn, wheel.collate.default_collate_fn),
        (automodel.qwen2_5_collate_fn, wheel.collate.qwen2_5_collate_fn),
    ):
        expected = other(copy.deepcopy(theirs), qwen)
        assert (expected["attention_mask"][1] == 0).sum() > 4
        for given in (ours, theirs):
            assert_same(collate(given, qwen), expected)
    assert wrappers[0][1]["conversation"] == theirs[1]["conversation"]
    assert not automodel._batch_has_media([wrappers[0].dataset[1]["conversation"]])  # not edited


def test_gemma4_is_the_same_but_for_the_labels(wheel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = built("gemma4")
    monkeypatch.setattr(processor.tokenizer, "padding_side", "right")
    ours = automodel.gemma4_prefix_collate_fn(examples(), processor)
    theirs = wheel.collate.gemma4_prefix_collate_fn(examples(), processor)
    assert_same(ours, theirs, but=("labels",))
    assert (ours["labels"] != -100).any(dim=1).all()
    for hook in (automodel, wheel.collate):
        inject = hook.gemma4_inject_thinking_prefix
        hooked = automodel.default_collate_fn(examples(), processor, _post_tokenize_hook=inject)
        assert_same(hooked, ours)
    batch = automodel.dspark_vlm_collate_fn(examples(), processor, 512, False)
    found, expected = ({k: v.clone() for k, v in batch.items()} for _ in range(2))
    assert automodel._inject_thinking_prefix_tokens(found, processor.tokenizer) is found
    wheel.collate._inject_thinking_prefix_tokens(expected, processor.tokenizer)
    assert_same(found, expected)
    automodel._truncate_token_axis(found, 400)
    wheel.collate._truncate_token_axis(expected, 400)
    assert_same(found, expected)
    for module in (automodel, wheel.collate):
        with pytest.raises(ValueError, match="max_length=12"):
            module._truncate_token_axis(found, 12)


def test_speech_recognition_is_the_same(wheel: Any) -> None:
    def talks() -> list[dict[str, Any]]:
        waves = (TONE, torch.from_numpy(TONE[::-1].copy()))
        return [talk({"type": "audio", "audio": wave}) for wave in waves]

    processor = built("qwen3_omni")
    for name in OTHERS["audio"]:
        ours = getattr(automodel, name)(talks(), processor)
        assert_same(ours, getattr(wheel.audio, name)(talks(), processor))
    for wrong, message in (
        ({"conversation": talks()[0]["conversation"][:1]}, "assistant"),
        (talk({"type": "audio", "audio": [0.0]}), "array"),
        (talk({"type": "audio", "audio": TONE.reshape(2, -1)}), "dimensional|1-D"),
    ):
        for module in (automodel, wheel.audio):
            with pytest.raises(ValueError, match=message):
                module.qwen3_omni_asr_collate_fn([wrong], processor)


def test_pieces_are_the_same(wheel: Any, qwen: Any) -> None:
    conversations = [example["conversation"] for example in EXAMPLES]
    tokenizer, theirs = qwen.tokenizer, wheel.collate
    ids = automodel.dspark_vlm_collate_fn(examples(), qwen, 64, False)["input_ids"]
    marker, stop = automodel._derive_turn_markers(tokenizer)
    assert (marker, stop) == theirs._derive_turn_markers(tokenizer)
    checks: list[tuple[str, tuple[Any, ...]]] = [
        ("_get_assistant_marker", (tokenizer,)),
        ("_get_stop_token_id", (tokenizer,)),
        ("_decode_single_token", (tokenizer, stop)),
        ("_find_pattern_indices", (ids[0], torch.tensor(marker))),
        ("_find_pattern_indices", (ids[0], torch.tensor([0, *marker[1:]]), 3, True)),
        ("_find_pattern_indices", (ids[0], torch.tensor([-1]))),
        ("_extract_assistant_text", (conversations[0][1],)),
        ("_extract_media_from_conversations", (conversations,)),
        ("_count_media_per_sample", (conversations,)),
        ("_extract_image_config", (qwen,)),
        ("_estimate_media_tokens", (conversations[2], qwen)),
        ("_drop_overlong_samples", (conversations, qwen, 40)),
        ("_drop_overlong_samples", (conversations, qwen, None)),
    ]
    for name, arguments in checks:
        found = getattr(automodel, name)(*arguments)
        assert found == getattr(theirs, name)(*arguments), name
    checks = [
        ("build_labels", (ids, conversations, qwen)),
        ("build_labels", (ids, conversations, tokenizer)),
        ("build_labels_from_template", (ids, conversations, qwen)),
        ("_build_labels_from_markers", (ids, marker, stop)),
    ]
    for name, arguments in checks:
        found = getattr(automodel, name)(*arguments)
        assert torch.equal(found, getattr(theirs, name)(*arguments)), name
    fakes = wheel.fake
    assert automodel._batch_has_media(conversations)
    for conversation in (*conversations, [], [{"role": "user", "content": "Hi"}], [{"role": "x"}]):
        assert automodel._conversation_has_media(conversation) == fakes._conversation_has_media(
            conversation
        )
        given = copy.deepcopy(conversation)
        ours = automodel.inject_fake_image_into_conversation(conversation)
        theirs_faked = fakes.inject_fake_image_into_conversation(conversation)
        assert [m["role"] for m in ours] == [m["role"] for m in theirs_faked]
        assert [len(m.get("content") or ()) for m in ours] == [
            len(m.get("content") or ()) for m in theirs_faked
        ]
        assert given == conversation


def test_a_turn_without_an_end_is_an_error() -> None:
    ids = torch.tensor([[1, 2, 7, 9, 0], [1, 2, 7, 0, 0]])
    with pytest.raises(ValueError, match=r"sample 1.*turn at token 2 has no end"):
        automodel._build_labels_from_markers(ids, [1, 2], 9)
    labels = automodel._build_labels_from_markers(ids[:1], [1, 2], 9)
    assert labels.tolist() == [[-100, -100, 7, 9, -100]]
    with pytest.raises(ValueError, match="assistant_marker is empty"):
        automodel._build_labels_from_markers(ids, [], 9)


def test_tokens_of_tokenizers_that_take_lists_or_tensors() -> None:
    def of(kind: type) -> Any:
        def decode(ids: Any) -> str:
            if not isinstance(ids, kind):
                raise TypeError("no")
            return f"token {int(ids[0]) if kind is not int else ids}"

        return SimpleNamespace(decode=decode)

    for kind in (int, list, torch.Tensor):
        assert automodel._decode_single_token(of(kind), 7) == "token 7"
    with pytest.raises(ValueError, match="token 7 cannot be decoded"):
        automodel._decode_single_token(of(dict), 7)


def test_media_values_are_merged_alike(wheel: Any) -> None:
    same = [torch.rand(2, 3, 4, 4), torch.rand(1, 3, 4, 4)]
    mixed = [[torch.rand(3, 4, 4), torch.rand(3, 2, 2)], same[0]]
    for values in (same, mixed, [*mixed, (torch.rand(3, 1, 1),)]):
        found, expected = (m._merge_media_values(values) for m in (automodel, wheel.collate))
        assert type(found) is type(expected)
        assert_same({"pixel_values": found}, {"pixel_values": expected})
    sizes = automodel._merge_media_values([same[0], torch.rand(1, 3, 2, 2)])  # theirs breaks
    assert [tuple(item.shape) for item in sizes] == [(3, 4, 4), (3, 4, 4), (3, 2, 2)]
    for module in (automodel, wheel.collate):
        for wrong in ([], [same[0], 3]):
            with pytest.raises((ValueError, TypeError)):
                module._merge_media_values(wrong)


def test_a_list_is_edited_in_place_as_there(wheel: Any) -> None:
    grey: Any = chat((4, 4))["conversation"]
    grey[0]["content"][0]["image"] = grey[0]["content"][0]["image"].convert("L")
    for module in (automodel, wheel.collate):
        given = [copy.deepcopy(grey)]
        assert module._ensure_rgb(given) is given
        assert given[0][0]["content"][0]["image"].mode == "RGB"
