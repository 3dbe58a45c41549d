"""Processors of every family, built offline from real parts and shared by all tests of a run.

The processor classes, image processors and feature extractors are those of transformers. What is a
stand-in has that in its name or its docstring: templates that no registry has, and classes of
remote code. `processor_of` and `shared` return the same object to every test, with all that was
learned of it; a test that changes a processor builds its own with `build`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tests.processors import (
    cohere,
    gemma,
    glm,
    idefics,
    llama,
    llava,
    other_families,
    qwen,
)
from tests.processors import remote_code_stand_ins as remote_code

BUILDERS: dict[str, Callable[[], Any]] = {
    builder.__name__: builder
    for builder in (
        cohere.aya_vision,
        cohere.cohere2_vision,
        gemma.gemma3,
        gemma.gemma3_whole,
        gemma.gemma3n,
        gemma.gemma4,
        gemma.gemma4_unified,
        gemma.paligemma,
        glm.glm46v,
        glm.glm4v,
        idefics.idefics3,
        idefics.smolvlm,
        llama.llama4,
        llama.mllama,
        llava.llava,
        llava.llava_next,
        llava.llava_onevision,
        llava.pixtral,
        other_families.inkling,
        other_families.internvl,
        other_families.kimi_k25,
        other_families.lfm2_vl,
        other_families.minimax_m3_vl,
        other_families.molmo2,
        other_families.nemotron_omni,
        other_families.ovis2,
        other_families.phi4_multimodal,
        other_families.step3p7,
        qwen.qwen2_5_omni,
        qwen.qwen2_5_vl,
        qwen.qwen2_vl,
        qwen.qwen3_5,
        qwen.qwen3_omni,
        qwen.qwen3_vl,
        remote_code.kimi_k25_remote_stand_in,
        remote_code.kimi_vl_stand_in,
        remote_code.llava_onevision_1_5_stand_in,
        remote_code.nemotron_parse_stand_in,
        remote_code.phi4mm_stand_in,
    )
}
"""What builds a family's processor, by the family's name."""


@attrs.frozen
class _Shared:
    """A processor that several tests use.

    Attributes:
        processor: The processor.
        state: Its state when it was built; empty for stand-ins that share their tokenizer, to which
            some processor classes add tokens.
    """

    processor: Any
    state: tuple[Any, ...] = ()


_SHARED: dict[Callable[[], Any], _Shared] = {}
_MOST_SHARED = 16
"""The number of processors that are kept, since collators cache much of each tokenizer."""
_CHANGED: list[str] = []


def build(name: str) -> Any:
    """Builds a processor of a family for one test, which may change it."""
    return BUILDERS[name]()


def shared(builder: Callable[[], Any]) -> Any:
    """Returns what a function builds, built once a run; no test may change it."""
    found = _SHARED.pop(builder, None)
    if found is None:
        processor = builder()
        is_alone = builder in BUILDERS.values()
        found = _Shared(processor, _state(processor) if is_alone else ())
    _SHARED[builder] = found
    if len(_SHARED) > _MOST_SHARED:
        _note_change(_SHARED.pop(next(iter(_SHARED))))
    return found.processor


def processor_of(name: str) -> Any:
    """Returns a family's processor, built once a run; no test may change it.

    Skips the test if the installed transformers lacks the class, or a package that it needs.
    """
    try:
        return shared(BUILDERS[name])
    except (AttributeError, ImportError) as error:
        pytest.skip(f"this transformers has no {name}: {error}")


def changed_processors() -> list[str]:
    """Returns the classes of shared processors that a test has changed."""
    for one in _SHARED.values():
        _note_change(one)
    return _CHANGED


def _note_change(one: _Shared) -> None:
    if one.state and _state(one.processor) != one.state:
        _CHANGED.append(type(one.processor).__name__)


def _state(processor: Any) -> tuple[Any, ...]:
    tokenizer = processor.tokenizer
    return (
        getattr(processor, "chat_template", None),
        tokenizer.chat_template,
        len(tokenizer),
        dict(tokenizer.special_tokens_map),
        tokenizer.padding_side,
        tokenizer.truncation_side,
    )


def with_template(name: str, template: str) -> Any:
    """Returns a copy of a family's processor with another template and the same tokenizer."""
    processor = copy.copy(processor_of(name))
    processor.chat_template = template
    return processor
