"""Each document of a pack has the logits that it has alone, or the layout is refused.

Every model is of its own class and configuration class, with random weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers as hf
from transformers.models.auto import modeling_auto

from tests.conftest import NIGHTLY
from tests.models.tiny_configs import WINDOW, tiny_config
from vlmcollate import BlockCausalMask, ConfigError, FlattenedDocuments, IndexedMask
from vlmcollate.packing import token_mixing as tables
from vlmcollate.packing.layout_rules import check_layout, refusal, right_layouts
from vlmcollate.packing.token_mixing import token_mixing

LENGTHS = (13, 21, 17)
TEXTS = tables._BY_MASK_OR_POSITIONS | tables._BY_MASK | tables._BY_KERNELS
WRAPPERS = sorted(
    tables._WRAPPERS
    - {
        "gemma3n",  # its vision tower needs timm; its text model is tried
        "kimi_vl",  # remote code
        "llama4",  # takes no text alone in transformers 5.24; its text model is tried
    }
)
LAYOUTS = (
    BlockCausalMask(additive=True),
    BlockCausalMask(additive=True, sliding_window=WINDOW),
    FlattenedDocuments(),
)
LEAKS = (
    "bailing_hybrid",
    "deepseek_v32",
    "inkling_text",
    "jamba",
    "kimi_linear",
    "mamba2",
    "minimax",
    "mistral_large4",
    "qwen4_exp",
    "recurrent_gemma",
    "rwkv",
    "zamba",
    "zaya",
)
"""Models that carry something past any layout, as they are in transformers."""


def _names() -> dict[str, str]:
    found: dict[str, Any] = {}
    for kind in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM"):
        found |= getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES", {})
    return found


SCORERS = sorted(TEXTS & _names().keys())
"""The text models that have a class of their own; the others are tried inside a wrapper."""
TRIED = [*SCORERS, *WRAPPERS][:: 1 if NIGHTLY else 2]


def _built(model_type: str) -> Any:
    name = _names().get(model_type, "")
    if model_type not in hf.CONFIG_MAPPING or not hasattr(hf, name):
        pytest.skip(f"this transformers has no model to score texts with a {model_type}")
    torch.manual_seed(0)
    config = tiny_config(model_type)
    config.get_text_config()._attn_implementation = "eager"
    model = getattr(hf, name)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.2)
    return model


@lru_cache(1)
def _documents() -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randint(10, 60, (length,), generator=random) for length in LENGTHS]


def _rows(model_type: str) -> list[dict[str, torch.Tensor]]:
    ids = torch.cat(_documents())
    numbers = torch.cat([torch.full((n,), i) for i, n in enumerate(LENGTHS, 1)])
    places = torch.cat([torch.arange(n) for n in LENGTHS])
    if model_type in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"):
        places = places[:, None].expand(-1, 4)  # as their collators give them
    return [
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "document_ids": numbers,
            "position_ids": places,
        }
    ]


def _difference(model: Any, layout: Any) -> float:
    """How far the documents of a pack are from themselves alone, as a share of the scale."""
    batch = layout(_rows(model.config.model_type), {})
    with torch.no_grad():
        packed = model(**batch).logits[0].split(LENGTHS)
        worst = 0.0
        for ids, found in zip(_documents(), packed, strict=True):
            alone = model(
                input_ids=ids[None], attention_mask=torch.ones_like(ids)[None], use_cache=False
            ).logits[0]
            worst = max(worst, float((found - alone).abs().max() / alone.abs().max()))
    return worst


def _accepted(model: Any) -> Iterator[Any]:
    mixing = token_mixing(model.config)
    for layout in LAYOUTS:
        try:
            check_layout(layout, mixing)
        except ConfigError:
            continue
        yield layout


@pytest.mark.parametrize("model_type", TRIED)
def test_documents_are_apart_with_every_layout_that_is_accepted(model_type: str) -> None:
    model = _built(model_type)
    layouts = list(_accepted(model))
    stateful = token_mixing(model.config).kinds & tables._STATEFUL
    if not layouts:
        # private: only the table of layouts reads it, and its answer depends on transformers
        assert not tables._restarts_by_positions()
        assert "version of transformers" in refusal(token_mixing(model.config))
    for layout in layouts:
        if stateful:
            assert isinstance(layout, FlattenedDocuments)
            with pytest.raises(ValueError, match="can't keep packed sequences apart without"):
                _difference(model, layout)
        else:
            assert _difference(model, layout) < 1e-4, layout


def test_every_text_model_that_is_known_is_tried() -> None:
    inside = {
        tiny_config(name).get_text_config().model_type
        for name in WRAPPERS
        if name in hf.CONFIG_MAPPING
    }
    assert {name for name in TEXTS - {*SCORERS} - inside if name in hf.CONFIG_MAPPING} == set()


@pytest.mark.parametrize("model_type", [*sorted(tables._BY_KERNELS), "nemotron_h_omni"])
def test_stateful_layers_start_anew_where_their_kernels_are_told_to(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _built(model_type)
    if not list(_accepted(model)):
        pytest.skip("refused for this transformers")
    kernels_by_document(model, monkeypatch)
    assert _difference(model, FlattenedDocuments()) < 1e-4


def kernels_by_document(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a model kernels that run transformers' own reference on one document after another.

    Like the real ones, a convolution and a scan read `seq_idx` alone, and linear attention
    `cu_seqlens` alone.
    """
    for name in {type(module).__module__ for module in model.modules()}:
        for function, kernel in list(vars(sys.modules[name]).items()):
            reference = getattr(kernel, "__wrapped__", None)
            if reference is None or not callable(kernel):
                continue
            if "conv1d_fn" in function or "scan" in function:
                monkeypatch.setattr(sys.modules[name], function, _by_seq_idx(reference))
            elif "delta" in function:
                monkeypatch.setattr(sys.modules[name], function, _by_lengths(reference))


def _by_seq_idx(reference: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(*args: Any, seq_idx: Any = None, cu_seqlens: Any = None, **options: Any) -> Any:
        del cu_seqlens
        lengths = None if seq_idx is None else seq_idx[0].unique_consecutive(return_counts=True)[1]
        return _one_by_one(reference, lengths, args, options)

    return kernel


def _by_lengths(reference: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(*args: Any, seq_idx: Any = None, cu_seqlens: Any = None, **options: Any) -> Any:
        del seq_idx
        lengths = None if cu_seqlens is None else cu_seqlens.diff()
        return _one_by_one(reference, lengths, args, options)

    return kernel


def _one_by_one(
    reference: Callable[..., Any], lengths: Any, args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    if lengths is None:
        return reference(*args, **options)
    sizes = [int(length) for length in lengths]
    edges = [0, *torch.tensor(sizes).cumsum(0).tolist()]

    def part(value: Any, start: int, end: int) -> Any:
        if isinstance(value, torch.Tensor) and edges[-1] in value.shape:
            return value.narrow(list(value.shape).index(edges[-1]), start, end - start)
        return value

    found = [
        reference(
            *(part(value, *edge) for value in args),
            **{key: part(value, *edge) for key, value in options.items()},
        )
        for edge in pairwise(edges)
    ]
    if isinstance(found[0], tuple):
        return (_joined([first for first, *_ in found], sizes), *found[-1][1:])
    return _joined(found, sizes)


def _joined(parts: list[torch.Tensor], sizes: list[int]) -> torch.Tensor:
    axis = next(
        axis for axis in range(parts[0].ndim) if [part.shape[axis] for part in parts] == sizes
    )
    return torch.cat(parts, axis)


@pytest.mark.parametrize("model_type", LEAKS)
def test_models_that_leak_are_refused(model_type: str) -> None:
    if model_type not in hf.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {model_type}")
    mixing = token_mixing(hf.CONFIG_MAPPING[model_type]())
    assert not mixing.separates_by
    assert not right_layouts(mixing)
    assert "PadToLongest()" in refusal(mixing)
    with pytest.raises(ConfigError, match="does not keep the documents of a pack apart"):
        check_layout(IndexedMask(), mixing)


@pytest.mark.skipif(not tables._restarts_by_positions(), reason="it leaks here")
@pytest.mark.parametrize("version", ["5.18.0", "5.23.1"])
def test_what_leaked_before_5_24_is_refused_there(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{tables.__name__}.transformers.__version__", version)
    for model_type in ("llama4_text", "qwen3_5_text", "lfm2"):
        assert not token_mixing(tiny_config(model_type)).separates_by
    assert token_mixing(tiny_config("qwen2")).separates_by >= {"mask", "positions"}


def test_windows_are_those_of_the_model() -> None:
    mixing = token_mixing(tiny_config("gemma3_text"))
    assert mixing.window == WINDOW
    for window in (None, WINDOW + 1):
        with pytest.raises(ConfigError, match=f"found {window}, expected {WINDOW}"):
            check_layout(BlockCausalMask(sliding_window=window), mixing)
    with pytest.raises(ConfigError, match="found 8, expected None"):
        check_layout(BlockCausalMask(sliding_window=8), token_mixing(tiny_config("llama")))
    everywhere = token_mixing(tiny_config("mistral"))
    for layout in LAYOUTS[:2]:
        with pytest.raises(ConfigError, match=r"set padding to FlattenedDocuments\(\)"):
            check_layout(layout, everywhere)
