"""The ways in which models mix the tokens of a row, and keep the documents of a pack apart.

Attention obeys a mask. A sliding window and a chunk count from a document's start only if the mask
does; linear attention, state-space layers and short convolutions carry a state past every mask.
Whether a model separates documents by `position_ids`, without a mask, depends on its code.
Therefore the tables here list the models whose logits for each document of a pack were compared
with those of the document alone, for every layout that they take. Any other model is refused.
"""

from __future__ import annotations

from typing import Any

import attrs
import transformers

from vlmcollate.padding import Separation

_OBEYS_A_MASK = frozenset({"full_attention", "sliding_attention"})
_CHUNKED = frozenset({"chunked_attention"})
_STATEFUL = frozenset({"linear_attention", "conv"})
_MIXES_NOTHING = frozenset({"moe", "mlp", "dense", "sparse"})

# Text models by `model_type`
_BY_MASK_OR_POSITIONS = frozenset(
    {
        "aria_text",
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "gemma",
        "gemma3_text",
        "gemma3n_text",
        "granite",
        "granite_docling_text",
        "hyperclovax",
        "llama",
        "llama4_text",
        "ministral",
        "ministral3",
        "mistral",
        "mistral4",
        "mixtral",
        "muse_glimmer_text",
        "muse_spark_text",
        "olmo2",
        "olmo3",
        "phi",
        "phi3",
        "phi4_multimodal",
        "qwen2",
        "qwen2_5_vl_text",
        "qwen2_moe",
        "qwen2_vl_text",
        "qwen3",
        "qwen3_moe",
        "qwen3_vl_moe_text",
        "qwen3_vl_text",
        "smollm3",
        "step3p5",
    }
)
_BY_MASK = frozenset({"afmoe", "gpt_oss"})
"""Text models whose code makes the mask without `position_ids`."""
_BY_KERNELS = frozenset(
    {
        "lfm2",
        "lfm2_moe",
        "lfm3",
        "nemotron_h",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_next",
    }
)
"""Text models whose stateful layers restart by `cu_seq_lens_q` and `seq_idx`."""

_WRAPPERS = frozenset(
    {
        "aria",
        "aya_vision",
        "cohere2_vision",
        "deepseek_vl",
        "deepseek_vl_hybrid",
        "gemma3",
        "gemma3n",
        "granite_docling",
        "hyperclovax_vision_v2",
        "idefics3",
        "internvl",
        "janus",
        "kimi_k25",
        "kimi_vl",
        "lfm2_vl",
        "lfm3_vl",
        "lighton_ocr",
        "llama4",
        "llava",
        "llava_next",
        "llava_next_video",
        "llava_onevision",
        "mistral3",
        "muse_glimmer",
        "muse_spark",
        "nemotron_h_omni",
        "ovis2",
        "qwen2_5_vl",
        "qwen2_audio",
        "qwen2_vl",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
        "smolvlm",
        "step3p7",
        "video_llava",
        "vipllava",
    }
)
"""Models that pass the mask, the positions and the lengths on to their text model."""


def _in_order(values: frozenset[str]) -> str:
    """Shows a set in the same order in every process."""
    return repr(sorted(values))


@attrs.frozen(kw_only=True)
class TokenMixing:
    """The way in which a model's text layers mix the tokens of a row.

    Attributes:
        model: The `model_type`, or the family's name.
        kinds: The kinds of its layers that mix tokens, by the names of `transformers`.
        separates_by: The means by which it keeps the documents of a row apart.
        window: The number of tokens that its sliding layers attend to; `None` if there are none, or
            it is unknown.
        why: The reason why it does not support other means, for error messages.
    """

    model: str
    kinds: frozenset[str] = attrs.field(default=frozenset({"full_attention"}), repr=_in_order)
    separates_by: frozenset[Separation] = attrs.field(
        default=frozenset({"mask", "positions", "lengths"}), repr=_in_order
    )
    window: int | None = None
    why: str = ""

    @property
    def slides(self) -> bool:
        """Whether some layers attend only to a window."""
        return "sliding_attention" in self.kinds


def token_mixing(config: Any) -> TokenMixing:
    """Reads a model's configuration.

    Args:
        config: The model's `transformers.PreTrainedConfig`, or its text model's.

    Returns:
        The mixing; its `separates_by` is empty if it is unknown.
    """
    name = str(config.model_type)
    if getattr(config, "is_encoder_decoder", False):
        return _unknown(name, "it is an encoder-decoder model")
    text = config.get_text_config()
    known = _BY_MASK_OR_POSITIONS | _BY_MASK | _BY_KERNELS
    for part, names in ((name, _WRAPPERS | known), (str(text.model_type), known)):
        if part not in names:
            return _unknown(name, f"no pack of a {part!r} model was compared with its documents")
    declared = getattr(text, "layer_types", None)
    slides_everywhere = not declared and getattr(text, "sliding_window", None) is not None
    kinds = frozenset(declared or ["sliding_attention" if slides_everywhere else "full_attention"])
    kinds -= _MIXES_NOTHING
    strange = kinds - _OBEYS_A_MASK - _CHUNKED - _STATEFUL
    if strange:
        return _unknown(name, f"no layout is known for its {_listed(strange)} layers", kinds)
    found, why = _separations(str(text.model_type), kinds, slides_everywhere=slides_everywhere)
    if not type(config).__module__.startswith("transformers."):
        found &= {"lengths"}
        why = "the masks that its remote code takes are unknown"
    window = getattr(text, "sliding_window", None) if "sliding_attention" in kinds else None
    return TokenMixing(model=name, kinds=kinds, separates_by=found, window=window, why=why)


def with_image_blocks(mixing: TokenMixing) -> TokenMixing:
    """Returns the mixing with bidirectional attention within images."""
    return attrs.evolve(
        mixing,
        separates_by=mixing.separates_by & {"mask"},
        why=mixing.why or "its image tokens attend to each other bidirectionally, by a mask",
    )


def _separations(
    text: str, kinds: frozenset[str], *, slides_everywhere: bool
) -> tuple[frozenset[Separation], str]:
    """Returns how a text model separates documents, and why not otherwise."""
    found: set[Separation] = {"mask", "positions", "lengths"}
    why = ""
    if text in _BY_MASK:
        found -= {"positions"}
        why = "its code does not read documents from position_ids"
    if slides_everywhere:
        found -= {"mask"}
        why = "its sliding_attention layers would use the mask as their own, without their window"
    beyond = kinds - _OBEYS_A_MASK
    if beyond:
        found -= {"mask", "lengths"}
        carried = beyond & _STATEFUL
        fault = "carry a state past every mask" if carried else "need a mask that cuts chunks"
        why = f"its {_listed(beyond)} layers {fault}"
        if (carried and text not in _BY_KERNELS) or not _restarts_by_positions():
            found -= {"positions"}
            why += ", and this version of transformers does not restart them with each document"
    return frozenset(found), why


def _restarts_by_positions() -> bool:
    """Returns whether such layers restart; before 5.24 they leak silently."""
    major, minor = transformers.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (5, 24)


def _unknown(name: str, why: str, kinds: frozenset[str] = frozenset()) -> TokenMixing:
    return TokenMixing(model=name, kinds=kinds, separates_by=frozenset(), why=why)


def _listed(kinds: frozenset[str]) -> str:
    return " and ".join(sorted(kinds))
