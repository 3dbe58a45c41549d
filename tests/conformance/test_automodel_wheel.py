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
from tests.conformance.test_automodel import EXAMPLES, TONE, chat, talk
from tests.processors import processor_of
from vlmcollate import ConfigError, automodel, collator_for
from vlmcollate.errors import EmptyBatchError, SampleTooLongError

# names with an underscore are NeMo Automodel's own, which its recipes import
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
        ("packing", "NeatPackConfig"),
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
    processor = processor_of("gemma4")
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

    processor = processor_of("qwen3_omni")
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
    def of(kind: Any) -> Any:
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


def all_of(dataset: Any) -> list[Any]:
    return [dataset[index] for index in range(len(dataset))]


def contract(kind: str, metadata: bool = False) -> Any:
    """As a model of the wheel brings it."""
    return SimpleNamespace(packed_mask_type=kind, requires_packed_sequence_metadata=metadata)


def packs_of_the_wheel(wheel: Any, processor: Any, size: int = 60, alignment: int = 1) -> list[Any]:
    """Two packs of the wheel's own wrappers, one of them of two documents."""
    samples = wheel.datasets.PreTokenizedDatasetWrapper(
        examples(), processor, inject_fake_images=False
    )
    wrapper = wheel.packing.PackedDatasetWrapper(
        samples, [[0, 1], [2]], size, sequence_alignment=alignment, padding_idx=3
    )
    return [wrapper[0], wrapper[1]]


def test_packs_of_the_wheel_are_collated_alike(wheel: Any, qwen: Any) -> None:
    theirs = wheel.collate
    for alignment in (1, 8):
        packs = packs_of_the_wheel(wheel, qwen, 90, alignment)
        assert {"seq_lens", "seq_lens_padded"} <= packs[0].keys()
        for kind in ("block_causal", "document_ids", "flash_varlen"):
            for metadata in (False, True):
                options = {"packing": contract(kind, metadata)}
                for more in ((), (128,), (None, None, False)):
                    found = automodel.neat_packed_vlm_collater(packs, 7, *more, **options)
                    expected = theirs.neat_packed_vlm_collater(packs, 7, *more, **options)
                    mask = expected.get("attention_mask")
                    if mask is not None and mask.ndim == 4:  # padding sees itself here
                        pads = found["_packed_seq_ids"] == 0
                        own = torch.diag_embed(pads)[:, None]
                        assert torch.equal(found.pop("attention_mask") & ~own, mask)
                        del expected["attention_mask"]
                    assert_same(found, expected)
        given: Any
        for given in ((), (128,), (128, -1)):
            found = automodel.packed_sequence_thd_vlm_collater(packs, 7, *given)
            expected = theirs.packed_sequence_thd_vlm_collater(packs, 7, *given)
            assert_same(found, expected, but=("mm_token_type_ids",))
    assert automodel.neat_packed_vlm_collater([]) == theirs.neat_packed_vlm_collater([]) == {}


def test_flash_attention_gets_lengths_and_no_mask(wheel: Any, qwen: Any) -> None:
    packs = packs_of_the_wheel(wheel, qwen, 90)
    first = len(packs[0]["input_ids"])
    lengths = packs[0]["seq_lens"]
    for version in (2, 3, 4):
        batch = automodel.neat_packed_vlm_collater(
            packs, 0, 96, attn_implementation=f"flash_attention_{version}"
        )
        assert "attention_mask" not in batch
        edges = [0, lengths[0], first, 96, 96 + len(packs[1]["input_ids"]), 192]
        assert batch["cu_seq_lens_q"].tolist() == edges
        assert torch.equal(batch["cu_seq_lens_k"], batch["cu_seq_lens_q"])
        assert (
            batch["max_length_q"]
            == batch["max_length_k"]
            == max(b - a for a, b in zip(edges, edges[1:], strict=False))
        )
    for name, dtype in (("sdpa", torch.bool), ("eager", torch.float32)):
        batch = automodel.neat_packed_vlm_collater(packs, attn_implementation=name)
        assert batch["attention_mask"].dtype == dtype
    flex = automodel.neat_packed_vlm_collater(packs, attn_implementation="flex_attention")
    assert torch.equal(flex["attention_mask"], batch["attention_mask"])  # added to the scores, too
    with pytest.raises(ConfigError, match=r"attn_implementation is unknown.*'flash'"):
        automodel.neat_packed_vlm_collater(packs, attn_implementation="flash")
    with pytest.raises(ConfigError, match="packed_mask_type is unknown"):
        automodel.neat_packed_vlm_collater(packs, packing=contract("dense"))
    with pytest.warns(FutureWarning, match="'sdpa' is ignored"):
        automodel.neat_packed_vlm_collater(
            packs, attn_implementation="sdpa", packing=contract("document_ids")
        )


def test_contradictions_in_packs_are_refused(wheel: Any, qwen: Any) -> None:
    pack = packs_of_the_wheel(wheel, qwen, 90)[0]
    a, b = pack["seq_lens"]
    torn = pack["attention_mask"].clone()
    torn[-1] = 1
    for change, message in (
        ({"seq_lens": [a, b + 1]}, "contradicts itself"),
        ({"seq_lens_padded": [a + 1, b - 1]}, "contradicts itself"),
        ({"seq_lens": None}, "one of seq_lens and seq_lens_padded"),
        ({"attention_mask": torn}, "split in attention_mask"),
        ({"labels": pack["labels"][1:]}, "input_ids, but"),
        ({"pixel_mask": torch.ones(1)}, "undeclared key 'pixel_mask'"),
    ):
        for collate in (
            automodel.neat_packed_vlm_collater,
            automodel.packed_sequence_thd_vlm_collater,
        ):
            with pytest.raises(ConfigError, match=message):
                collate([{**pack, **change}])
    axes = {**pack, "position_ids": pack["position_ids"].expand(3, -1)}
    with pytest.raises(ConfigError, match="position_ids differ"):
        automodel.neat_packed_vlm_collater([pack, axes])
    with pytest.raises(SampleTooLongError):
        automodel.neat_packed_vlm_collater([pack], max_length=9)


def test_packs_that_hold_nothing_are_padding(wheel: Any, qwen: Any) -> None:
    samples = wheel.datasets.PreTokenizedDatasetWrapper(examples(), qwen)
    empty = wheel.packing.PackedDatasetWrapper(samples, [[0]], 4)[0]  # the sample does not fit
    assert not len(empty["input_ids"])
    full = packs_of_the_wheel(wheel, qwen)[1]
    batch = automodel.neat_packed_vlm_collater([full, empty], packing=contract("document_ids"))
    assert not batch["attention_mask"][1].any()
    assert (batch["labels"][1] == -100).all()
    found, expected = (
        module.packed_sequence_thd_vlm_collater([full, empty])
        for module in (automodel, wheel.collate)
    )
    assert_same(found, expected, but=("mm_token_type_ids",))
    with pytest.raises(EmptyBatchError):
        automodel.neat_packed_vlm_collater([empty])


def test_media_of_several_sizes_stays_a_list(wheel: Any, qwen: Any) -> None:
    pack = packs_of_the_wheel(wheel, qwen)[1]
    sizes = [torch.rand(3, 4, 6), torch.rand(3, 2, 2)]
    packs = [
        {**pack, "pixel_values": sizes, "image_grid_thw": None},
        {**pack, "pixel_values": torch.rand(2, 3, 8, 8), "image_grid_thw": None},
        {**pack, "pixel_values": None, "image_grid_thw": None},
    ]
    for name in ("neat_packed_vlm_collater", "packed_sequence_thd_vlm_collater"):
        found, expected = (getattr(m, name)(packs) for m in (automodel, wheel.collate))
        assert [tuple(item.shape) for item in found["pixel_values"]] == [
            (3, 4, 6),
            (3, 2, 2),
            (3, 8, 8),
            (3, 8, 8),
        ]
        assert_same(found, expected, but=("attention_mask", "mm_token_type_ids"))
    sample = automodel.PreTokenizedDatasetWrapper(examples(), qwen)[0]
    given = [{**sample, "pixel_values": sizes}, sample]
    found, expected = (m.pad_collate_fn(given, qwen) for m in (automodel, wheel.collate))
    assert_same(found, expected)


def test_pretokenized_samples_are_the_same(wheel: Any, qwen: Any) -> None:
    wrappers = [
        module.PreTokenizedDatasetWrapper(examples(), qwen, None, 10, False, None, False)
        for module in (automodel, wheel.datasets)
    ]
    ours: Any = wrappers[0]
    assert len(list(ours)) == 3  # theirs draws another sample for the fourth, for ever
    for ours, theirs in ([wrapper[i] for wrapper in wrappers] for i in range(3)):
        assert_same(ours, {**theirs, "mm_token_type_ids": theirs["mm_token_type_ids"][0]})
    for samples in ([wrapper[i] for i in range(3)] for wrapper in wrappers):
        found, expected = (m.pad_collate_fn(samples, qwen) for m in (automodel, wheel.collate))
        assert_same(found, expected)


def test_a_sample_that_fails_has_the_same_replacement(
    wheel: Any, qwen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Any] = [chat((64, 48), answer=f"{'word ' * n}end") for n in (1, 400, 2, 400, 3)]
    rows[2] = {"conversation": [{"role": "user", "content": [{"type": "image", "image": "no"}]}]}
    for index in range(len(rows)):
        ours, theirs = (
            module.PreTokenizedDatasetWrapper(copy.deepcopy(rows), qwen, 100)
            for module in (automodel, wheel.datasets)
        )
        assert torch.equal(ours[index]["input_ids"], theirs[index]["input_ids"])
    assert "sample 1 is replaced by another: sample 1: " in caplog.text
    cut = automodel.PreTokenizedDatasetWrapper(rows, qwen, 100, truncate=True)[1]
    assert len(cut["input_ids"]) == 100
    with pytest.raises(RuntimeError, match="Failed to load a valid sample after 3 retries"):
        automodel.PreTokenizedDatasetWrapper(rows[2:3], qwen, max_retries=3)[0]
    ours, theirs = (m.RobustDatasetWrapper(_Broken(), 40) for m in (automodel, wheel.datasets))
    assert [ours[i] for i in range(6)] == [theirs[i] for i in range(6)]


class _Broken:
    """A dataset that cannot give its even samples."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index % 2 == 0:
            raise OSError("gone")
        return index


def test_bugs_are_not_bad_samples(qwen: Any) -> None:
    def broken(batch: Any, _: Any) -> Any:
        return batch.typo

    for wrapper in (
        automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen, post_tokenize_hook=broken),
        automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen, post_tokenize_hook=lambda *_: None),
        automodel.PreTokenizedDatasetWrapper([{"messages": []}], qwen),
    ):
        with pytest.raises((AttributeError, ConfigError)):
            wrapper[0]
    with pytest.raises(ConfigError, match="max_retries"):
        automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen, None, True)  # a fake image, once


def test_a_hook_changes_a_sample_before_its_labels(qwen: Any) -> None:
    def doubled(batch: Any, processor: Any) -> Any:
        assert processor is qwen
        assert "labels" not in batch
        return batch

    plain = automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen)
    hooked = automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen, post_tokenize_hook=doubled)
    for ours, same in zip(all_of(hooked), all_of(plain), strict=True):
        assert_same(ours, same)
    gemma = processor_of("gemma4")
    inject = automodel.gemma4_inject_thinking_prefix
    wrapper = automodel.PreTokenizedDatasetWrapper(
        EXAMPLES, gemma, post_tokenize_hook=inject, inject_fake_images=False
    )
    batch = automodel.pad_collate_fn([wrapper[i] for i in range(3)], gemma)
    assert_same(batch, automodel.gemma4_prefix_collate_fn(EXAMPLES, gemma))
    length = len(wrapper[1]["input_ids"])
    for truncate in (True, False):
        short = automodel.PreTokenizedDatasetWrapper(
            EXAMPLES[1:2], gemma, length - 1, 2, truncate, inject, False
        )
        if truncate:
            assert len(short[0]["input_ids"]) == length - 1
        else:
            with pytest.raises(RuntimeError, match="longer than max_length"):
                short[0]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision", "smolvlm"])
def test_fake_images_survive_the_shift(name: str) -> None:
    processor = processor_of(name)
    rows = [talk(answer="Only words."), talk(answer="Other words.")]
    wrapper = automodel.PreTokenizedDatasetWrapper(rows, processor)
    batch = automodel.pad_collate_fn([wrapper[0], wrapper[1]], processor)
    plain = automodel.default_collate_fn(rows, processor)
    length = plain["input_ids"].shape[1]
    held = batch["attention_mask"][:, :length] == 1
    assert torch.equal(batch["input_ids"][:, :length][held], plain["input_ids"][held])
    assert not batch["attention_mask"][:, length + 1 :].any()
    assert (batch["labels"] != -100).sum() == (plain["labels"] != -100).sum()
    (token,) = collator_for(processor).traits.media_tokens["image"]
    wanted = processor.tokenizer.convert_tokens_to_ids(token)
    whole = collator_for(processor, dummy_media="sample").encode(rows[0]["conversation"])
    count = (whole.input_ids == wanted).sum()
    assert count > 0
    assert ((batch["input_ids"] == wanted).sum(dim=1) == count).all()
    for limit in (len(wrapper[0]["input_ids"]), len(wrapper[0]["input_ids"]) - 1):
        short = automodel.PreTokenizedDatasetWrapper(rows, processor, limit, truncate=True)
        samples = [short[0], short[1]]
        padded = automodel.pad_collate_fn(samples, processor, limit)
        assert padded["input_ids"].shape[1] == limit - 1
        assert ((padded["input_ids"] == wanted).sum(dim=1) == count).all()


def test_packs_keep_fake_images_out_of_the_documents(qwen: Any) -> None:
    wrapper = automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen)
    plain = automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen, inject_fake_images=False)
    pack = automodel.PackedDatasetWrapper(wrapper, [[1, 0]], 200)[0]
    fake = qwen.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    ids, documents = pack["input_ids"], pack["attention_mask"]
    assert pack["n_images"] == 2
    assert (documents[ids == fake] == 0).sum() == 4
    for number, index in ((1, 1), (2, 0)):
        whole = plain[index]
        held = documents == number
        size = int(held.sum())
        assert torch.equal(ids[held], whole["input_ids"][:size])
        assert len(whole["input_ids"]) - size in (0, 1)
    thd = automodel.packed_sequence_thd_vlm_collater([pack])
    assert thd["seq_lens_padded"].sum() == len(ids)
    assert thd["seq_lens"].sum() == (documents > 0).sum()


def test_our_packs_are_as_the_wheels(wheel: Any, qwen: Any) -> None:
    for alignment in (1, 8):
        samples = automodel.PreTokenizedDatasetWrapper(examples(), qwen, inject_fake_images=False)
        wrapper = automodel.PackedDatasetWrapper(samples, [[0, 1], [2]], 90, 3, alignment)
        for index, expected in enumerate(packs_of_the_wheel(wheel, qwen, 90, alignment)):
            ours = wrapper[index]
            assert ours.pop("media_joins")
            assert_same(ours, expected, but=("position_ids",))
            assert ours["position_ids"].shape == (3, len(expected["input_ids"]))
    rope = automodel.PackedDatasetWrapper(samples, [[0]], 90, get_rope_index=print)
    assert rope.has_mrope
    assert torch.equal(
        rope[0]["position_ids"], wrapper[0]["position_ids"][:, : len(rope[0]["input_ids"])]
    )
    flat = automodel.PreTokenizedDatasetWrapper(examples(), processor_of("smolvlm"))
    with pytest.raises(ConfigError, match="positions of one axis"):
        automodel.PackedDatasetWrapper(flat, [[0]], 2000, get_rope_index=print)[0]
    for options, message in (
        ({"get_rope_index": print, "sequence_alignment": 2}, "sequence_alignment=2"),
        ({"max_retries": 3}, "max_retries=3 has no effect"),
    ):
        with pytest.raises(ConfigError, match=message):
            automodel.PackedDatasetWrapper(samples, [[0]], 90, **options)
    theirs = wheel.datasets.PreTokenizedDatasetWrapper(examples(), qwen)
    with pytest.raises(ConfigError, match="inner_dataset is not a wrapper of this library"):
        automodel.PackedDatasetWrapper(theirs, [[0]], 90)


def test_samples_that_do_not_fit_their_pack_are_reported(
    qwen: Any, caplog: pytest.LogCaptureFixture
) -> None:
    samples = automodel.PreTokenizedDatasetWrapper(EXAMPLES, qwen, inject_fake_images=False)
    sizes = [len(samples[i]["input_ids"]) - 1 for i in range(3)]
    pack = automodel.PackedDatasetWrapper(samples, [[2, 0, 1]], sizes[2] + sizes[1])[0]
    assert pack["seq_lens"] == [sizes[2], sizes[1]]
    assert "sample 0 is dropped from pack 0" in caplog.text
    with pytest.raises(SampleTooLongError, match="no sample of the pack fits"):
        automodel.PackedDatasetWrapper(samples, [[2]], sizes[2] - 1)[0]


def test_packs_are_planned_by_true_lengths(qwen: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        chat((64, 48), answer="word " * n) if n % 2 else talk(answer="word " * n)
        for n in range(1, 13)
    ]
    rows[3] = {"conversation": "nothing"}
    samples = automodel.PreTokenizedDatasetWrapper(rows, qwen)
    lengths = [len(samples[i]["input_ids"]) - 1 for i in range(len(rows))]
    for balanced in (True, False):
        packed = automodel.neat_pack_dataset_vlm(
            samples, 120, 0, ds_raw=rows, processor=qwen, balance_media_tokens=balanced
        )
        assert sorted(i for members in packed.bins for i in members) == list(range(12))
        for members, pack in zip(packed.bins, all_of(packed), strict=True):
            assert len(pack["input_ids"]) == sum(lengths[i] for i in members) <= 120
    media = [sum(i % 2 == 0 for i in members) for members in packed.bins]
    spread = automodel.neat_pack_dataset_vlm(samples, 120)
    assert max(sum(i % 2 == 0 for i in m) for m in spread.bins) <= max(media)
    assert len(automodel.neat_pack_dataset_vlm(samples, 120, max_packs=1)) == 1
    half = automodel.neat_pack_dataset_vlm(samples, 120, packing_ratio=0.5)
    assert all(sum(lengths[i] for i in m) <= 60 or len(m) == 1 for m in half.bins)
    aligned = automodel.neat_pack_dataset_vlm(samples, 128, sequence_alignment=16)
    assert all(len(pack["input_ids"]) % 16 == 0 for pack in all_of(aligned))
    limit = max(lengths) - 1
    with pytest.raises(SampleTooLongError, match="longer than pack_size"):
        automodel.neat_pack_dataset_vlm(samples, limit)
    fewer = automodel.neat_pack_dataset_vlm(samples, limit, drop_long_samples=True)
    kept = [i for i, length in enumerate(lengths) if length <= limit]
    assert sorted(i for members in fewer.bins for i in members) == kept
    assert "is dropped" in caplog.text
    for options, message in (
        ({"packing_ratio": 0}, "packing_ratio"),
        ({"processor": processor_of("qwen3_vl")}, "processor differs"),
        ({"ds_raw": rows[:3]}, "ds_raw differs"),
    ):
        with pytest.raises(ConfigError, match=message):
            automodel.neat_pack_dataset_vlm(samples, 120, **options)


def test_the_sampler_draws_as_the_wheels(wheel: Any, qwen: Any) -> None:
    rows = [talk(answer="word " * (n * 37 % 60)) for n in range(24)]
    rows[5]["_text_tokens"] = 7
    for seed, epoch in ((42, 0), (1, 3)):
        ours, theirs = (
            m.LengthGroupedSampler(rows, seed, None, 20, 4) for m in (automodel, wheel.samplers)
        )
        for sampler in (ours, theirs):
            sampler.set_epoch(epoch)
        assert ours.lengths == theirs.lengths
        assert ours.sorted_indices == theirs.sorted_indices
        assert list(ours) == list(theirs)
    collator = collator_for(qwen)
    mixed = [*rows, *EXAMPLES]
    exact = automodel.LengthGroupedSampler(
        automodel.RobustDatasetWrapper(mixed), processor=qwen, max_length=60, batch_size=4
    )
    assert exact.lengths == [len(collator.encode(row["conversation"])) for row in mixed]
    assert exact.media_lengths[-3:] == [3, 0, 12]
    assert all(exact.lengths[i] <= 60 for i in exact)
    drawn = list(exact)
    assert len(drawn) == len(exact)
    batches = [drawn[i : i + 4] for i in range(0, len(drawn) // 4 * 4, 4)]
    order = {index: place for place, index in enumerate(exact.sorted_indices)}
    for batch in batches:  # neighbours in length, also with a smaller rest
        places = sorted(order[i] for i in batch)
        assert places == list(range(places[0], places[0] + 4))
    part: Any = torch.utils.data.Subset(rows, [8, 3])  # type: ignore[arg-type]  # a map-style dataset
    some = automodel.LengthGroupedSampler(part)
    assert some.lengths == [ours.lengths[8], ours.lengths[3]]


def made_rows() -> list[dict[str, Any]]:
    return examples()


def made_processor(**_: Any) -> Any:
    return processor_of("qwen2_5_vl")


def test_its_loader_collates_our_packs(wheel: Any, qwen: Any) -> None:
    recipe = importlib.import_module("nemo_automodel.recipes._typed_config").RecipeConfig
    loader = {"shuffle": False, "num_workers": 0}
    run = {
        "pretrained_model_name_or_path": "none",
        "dp_rank": 0,
        "dp_world_size": 1,
        "batch_size": 2,
    }
    processor = {"_target_": made_processor}
    # the way by YAML: the dataset packs, and the loader takes the collate function
    config = recipe.resolve_vlm_dataloader(
        {
            "_target_": automodel.make_packed_dataset,
            "dataset": {"_target_": made_rows},
            "processor": processor,
            "pack_size": 80,
            "samples": {"max_length": 60, "truncate": True},
            "packs": {"drop_long_samples": True},
        },
        {**loader, "collate_fn": {"_target_": automodel.packed_collate_fn, "max_length": 96}},
        processor_node=processor,
    )
    assert config.packing is None
    assert config.pretokenization is None
    (batch,) = list(config.build(**run).dataloader)
    assert batch["input_ids"].shape == (2, 96)
    assert batch["position_ids"].shape == (3, 2, 96)
    assert batch["attention_mask"].shape == (2, 1, 96, 96)
    words = qwen.tokenizer.decode(batch["labels"][batch["labels"] != -100])
    assert all(answer in words for answer in ("A cat.", "No image here.", "Two."))
    # with packing on, the loader ignores it
    packed = {"pack_size": 80}
    config = recipe.resolve_vlm_dataloader(
        {"_target_": made_rows},
        {**loader, "collate_fn": {"_target_": _never}},
        processor_node=processor,
        packed_sequence_node=packed,
    )
    assert list(config.build(**run).dataloader)
    # the way in Python: its wrappers become ours, and so do its collate functions
    config.pretokenization = automodel.PreTokenizedDatasetWrapperConfig(max_length=60)
    config.packing = automodel.NeatPackConfig(pack_size=80, collate_max_length=96)
    built_loader = config.build(**run, packing_contract=contract("flash_varlen"))
    (again,) = list(built_loader.dataloader)
    assert built_loader.dataloader.dataset.inner.processor is qwen
    assert torch.equal(again["input_ids"], batch["input_ids"])
    assert again["cu_seq_lens_q"][-1] == 192
    config.packing = automodel.NeatPackConfig(80, collate_max_length=96, packing_format="thd")
    (thd,) = list(config.build(**run).dataloader)
    assert thd["seq_lens_padded"].clamp(min=0).sum(dim=1).tolist() == [96, 96]


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("the loader ignores this")


def test_the_collate_function_of_packs_refuses_contradictions(qwen: Any) -> None:
    rows = automodel.make_packed_dataset(made_rows(), qwen, 80)
    packs = all_of(rows)
    for options, message in (
        ({"packed_mask_type": "document_ids", "attn_implementation": "sdpa"}, "contradict"),
        ({"packing_format": "thd", "attn_implementation": "sdpa"}, "contradict"),
        ({"packing_format": "flat"}, "packing_format is unknown"),
    ):
        with pytest.raises(ConfigError, match=message):
            automodel.packed_collate_fn(packs, qwen, **options)  # type: ignore[arg-type]
    assert automodel.packed_collate_fn(packs, qwen, packing_format="thd")["qkv_format"] == "thd"
    for samples, more in (({"max_lenght": 3}, {}), ({}, {"pack": 3})):
        with pytest.raises(ConfigError, match="is unknown"):
            automodel.make_packed_dataset(made_rows(), qwen, 80, samples, more)
    with pytest.raises(ConfigError, match="not callable"):
        automodel.make_packed_dataset({"_target_": "x.y"}, qwen, 80)
