"""Every `stack` of the library refuses what it cannot stack, with the way on."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import attrs
import pytest

import vlmcollate
from vlmcollate import BlockCausalMask, ConfigError, collator_for
from vlmcollate.mixture import Mixture
from vlmcollate.objectives import (
    ClassificationCollator,
    CompletionsCollator,
    DocumentCollator,
    EmbeddingCollator,
)
from vlmcollate.preference import KTOCollator, PreferenceCollator, RewardCollator
from vlmcollate.testing import tiny_processor

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
PLAIN = collator_for(tiny_processor())
PACKS = attrs.evolve(PLAIN, max_length=64, padding=BlockCausalMask())
MIXTURE = Mixture({"chats": ([CHAT], 1.0)}, seed=0)
MIXED = MIXTURE.collator(PLAIN)
PAIR = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
ANSWER = {"prompt": "Is it?", "completion": "Yes.", "label": True}
LABELLED = {"text": "Is it?", "label": 0}

ENCODED: dict[str, Any] = {
    "EncodedSample": PLAIN.encode(CHAT),
    "Prompt": PLAIN.prompt(CHAT),
    "Explanation": PLAIN.explain(CHAT),
    "MixtureRow": MIXTURE[0],
    "EncodedPair": PreferenceCollator(PLAIN).encode(PAIR),
    "EncodedAnswer": KTOCollator(PLAIN).encode(ANSWER),
    "EncodedInput": ClassificationCollator(PLAIN, num_labels=1).encode(LABELLED),
    "EncodedGroup": EmbeddingCollator(PLAIN).encode({"anchor": "A", "positive": "B"}),
    "EncodedCompletions": CompletionsCollator(PLAIN).encode({"prompt": "A", "completion": "B"}),
    "EncodedDocument": DocumentCollator(PACKS).encode({"content": "A bird."}),
}
STACKS: dict[str, tuple[str, Any]] = {
    "Batches.stack": ("EncodedSample", PLAIN.stack),
    "Batches.pack": ("EncodedSample", PLAIN.pack),
    "Batches.pack_branches": ("EncodedSample", PLAIN.pack_branches),
    "Prompts.stack_prompts": ("Prompt", PLAIN.stack_prompts),
    "MixtureCollator.stack": ("EncodedSample", MIXED.stack),
    "MixtureCollator.pack": ("EncodedSample", MIXED.pack),
    "PreferenceCollator.stack": ("EncodedPair", PreferenceCollator(PLAIN).stack),
    "RewardCollator.stack": ("EncodedPair", RewardCollator(PLAIN).stack),
    "KTOCollator.stack": ("EncodedAnswer", KTOCollator(PLAIN, with_kl=False).stack),
    "ClassificationCollator.stack": (
        "EncodedInput",
        ClassificationCollator(PLAIN, num_labels=1).stack,
    ),
    "EmbeddingCollator.stack": ("EncodedGroup", EmbeddingCollator(PLAIN).stack),
    "CompletionsCollator.stack": ("EncodedCompletions", CompletionsCollator(PLAIN).stack),
    "DocumentCollator.stack": ("EncodedDocument", DocumentCollator(PACKS).stack),
}
OTHERS: dict[str, Any] = {**ENCODED, "dict": PAIR, "list": CHAT, "str": "Hi", "nothing": None}
WAYS = {
    "Prompt": "stack_prompts",
    "Explanation": "its `sample`",
    "MixtureRow": "mixture",
    "EncodedSample": "BaseCollator.stack",
    "EncodedPair": "PreferenceCollator.stack",
    "EncodedAnswer": "KTOCollator.stack",
    "EncodedInput": "ClassificationCollator.stack",
    "EncodedGroup": "EmbeddingCollator.stack",
    "EncodedCompletions": "CompletionsCollator.stack",
    "EncodedDocument": "DocumentCollator.stack",
    "dict": "encode",
    "list": "encode",
    "str": "encode",
    "nothing": "encode",
}


@pytest.mark.parametrize("name", STACKS)
def test_what_encode_returned_is_stacked(name):
    kind, stack = STACKS[name]
    stack([ENCODED[kind]] * 2)


@pytest.mark.parametrize(
    ("name", "other"),
    [(name, other) for name in STACKS for other in OTHERS if other != STACKS[name][0]],
)
def test_another_kind_is_refused_with_the_way_on(name, other):
    kind, stack = STACKS[name]
    with pytest.raises(ConfigError, match=rf"found .*{other}.* at place 1, expected {kind}") as one:
        stack([ENCODED[kind], OTHERS[other]])
    assert WAYS[other] in str(one.value)


@pytest.mark.parametrize("name", STACKS)
def test_one_alone_and_what_is_read_once_are_refused(name):
    kind, stack = STACKS[name]
    for found, words in [
        (ENCODED[kind], f"found {kind}, expected a list"),
        (iter([ENCODED[kind]] * 2), "found list_iterator, expected a list"),
        ({0: ENCODED[kind]}, "found dict, expected a list"),
        (None, "found nothing, expected a list"),
    ]:
        with pytest.raises(ConfigError, match=words):
            stack(found)


@pytest.mark.parametrize("name", STACKS)
def test_a_list_of_all_samples_of_an_example_is_named(name):
    kind, stack = STACKS[name]
    with pytest.raises(ConfigError, match="a list of such; join the lists"):
        stack([[ENCODED[kind]], [ENCODED[kind]]])


def test_every_stack_of_the_library_is_tried():
    found = set()
    for module in pkgutil.walk_packages(vlmcollate.__path__, "vlmcollate."):
        if ".automodel" in module.name or ".integrations" in module.name:
            continue  # they call these
        for name, one in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if one.__module__ == module.name and not inspect.isabstract(one):
                own = vars(one).keys() & {"stack", "stack_prompts", "pack", "pack_branches"}
                found |= {f"{name}.{method}" for method in own}
    assert found == {*STACKS}
