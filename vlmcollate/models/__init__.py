"""One file per model family, and the registry that finds the collator of a processor.

To add a family, write `models/<model_type>.py` and name its processor class below.
"""

from __future__ import annotations

import difflib
import inspect
import os
from typing import TYPE_CHECKING, Any

import attrs

from vlmcollate.collator import BaseCollator
from vlmcollate.encode.options import CollatorOptionsDict
from vlmcollate.errors import ConfigError
from vlmcollate.family import Family
from vlmcollate.models.default import DefaultCollator
from vlmcollate.models.gemma3 import Gemma3Collator
from vlmcollate.models.gemma3n import Gemma3nCollator
from vlmcollate.models.gemma4 import Gemma4Collator
from vlmcollate.models.glm4v import Glm4vCollator, Glm46VCollator
from vlmcollate.models.idefics3 import Idefics3Collator
from vlmcollate.models.kimi_k25 import Kimi_K25Collator
from vlmcollate.models.kimi_k25_remote import KimiK25Collator
from vlmcollate.models.kimi_vl import KimiVLCollator
from vlmcollate.models.llava import LlavaCollator
from vlmcollate.models.llava_onevision import LlavaOnevisionCollator
from vlmcollate.models.mllama import MllamaCollator
from vlmcollate.models.molmo2 import Molmo2Collator
from vlmcollate.models.nemotron_h_omni import NemotronH_Omni_Reasoning_V3Collator
from vlmcollate.models.nemotron_parse import NemotronParseCollator
from vlmcollate.models.paligemma import PaliGemmaCollator
from vlmcollate.models.phi4_multimodal import Phi4MultimodalCollator
from vlmcollate.models.phi4mm_remote import Phi4MMCollator
from vlmcollate.models.qwen2_5_vl import Qwen2_5_VLCollator
from vlmcollate.models.qwen2_vl import Qwen2VLCollator
from vlmcollate.models.qwen3_vl import Qwen3VLCollator
from vlmcollate.models.qwen_omni import Qwen2_5OmniCollator, Qwen3OmniMoeCollator
from vlmcollate.models.smolvlm import SmolVLMCollator
from vlmcollate.prompt.direct import chat_template_of
from vlmcollate.validators import check_decorated

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

COLLATORS: dict[str, type[BaseCollator]] = {
    "Gemma3Processor": Gemma3Collator,
    "Gemma3nProcessor": Gemma3nCollator,
    "Gemma4Processor": Gemma4Collator,
    "Gemma4UnifiedProcessor": Gemma4Collator,
    "Glm4vProcessor": Glm4vCollator,
    "Glm46VProcessor": Glm46VCollator,
    "Idefics3Processor": Idefics3Collator,
    "KimiK25Processor": KimiK25Collator,
    "KimiVLProcessor": KimiVLCollator,
    "Kimi_K25Processor": Kimi_K25Collator,
    "LlavaProcessor": LlavaCollator,
    "LlavaOnevisionProcessor": LlavaOnevisionCollator,
    "MllamaProcessor": MllamaCollator,
    "Molmo2Processor": Molmo2Collator,
    "NemotronH_Omni_Reasoning_V3Processor": NemotronH_Omni_Reasoning_V3Collator,
    "NemotronParseProcessor": NemotronParseCollator,
    "PaliGemmaProcessor": PaliGemmaCollator,
    "Phi4MMProcessor": Phi4MMCollator,
    "Phi4MultimodalProcessor": Phi4MultimodalCollator,
    "Qwen2VLProcessor": Qwen2VLCollator,
    "Qwen2_5OmniProcessor": Qwen2_5OmniCollator,
    "Qwen2_5_VLProcessor": Qwen2_5_VLCollator,
    "Qwen3OmniMoeProcessor": Qwen3OmniMoeCollator,
    "Qwen3VLProcessor": Qwen3VLCollator,
    "SmolVLMProcessor": SmolVLMCollator,
}
"""The collator of each processor class, by the class's name; `register` adds to it."""


def register(processor_class: str, collator_class: type[BaseCollator]) -> None:
    """Makes `collator_for` use a collator for a processor class.

    Args:
        processor_class: The class's name, such as `"Qwen3VLProcessor"`. A name that is already
            registered gets the new collator.
        collator_class: A subclass of `BaseCollator`.

    Raises:
        ConfigError: It is not such a subclass, or adds options without the attrs decorator.
    """
    if not (isinstance(collator_class, type) and issubclass(collator_class, BaseCollator)):
        raise ConfigError(f"expected a subclass of BaseCollator, found {collator_class!r}")
    check_decorated(collator_class)
    COLLATORS[processor_class] = collator_class


def collator_for(processor: Any, **options: Unpack[CollatorOptionsDict]) -> BaseCollator:
    """Returns the collator of a processor.

    Args:
        processor: A `transformers` processor with a chat template.
        **options: The options of every collator; see `CollatorOptions`. Instantiate a collator
            class itself to set options of its own.

    Returns:
        The collator registered for the processor's class or the nearest of its bases, and
        `DefaultCollator` for any other processor with a chat template.

    Raises:
        ConfigError: The processor is a name or has no chat template, or an option is wrong.
    """
    if isinstance(processor, str | os.PathLike):
        raise ConfigError(
            f"processor is wrong: found {os.fspath(processor)!r}, expected a processor; load it "
            f"with AutoProcessor.from_pretrained({os.fspath(processor)!r})"
        )
    collator_class = next(
        (
            COLLATORS[base.__name__]
            for base in type(processor).__mro__
            if base.__name__ in COLLATORS
        ),
        DefaultCollator,
    )
    has_tokenizer = getattr(processor, "tokenizer", None) is not None
    needs_template = _declared(collator_class).needs_chat_template
    if needs_template and not (has_tokenizer and chat_template_of(processor)):
        raise ConfigError(
            f"{type(processor).__name__} has no chat template; set processor.chat_template, or "
            "load the processor of an instruction-tuned model"
        )
    given: dict[str, Any] = {**options}
    known = {field.alias: field for field in attrs.fields(collator_class) if field.init}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ConfigError(_unknown_option(collator_class, unknown[0], list(known)))
    return collator_class(processor=processor, **given)


def _declared(collator_class: type[BaseCollator]) -> Family:
    """Returns a class's family, or the default family if it is probed."""
    family = inspect.getattr_static(collator_class, "family")
    return family if isinstance(family, Family) else Family()


def _unknown_option(collator_class: type[BaseCollator], name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(sorted(known))}"
    return f"{collator_class.__name__} has no option {name!r}; {hint}"
