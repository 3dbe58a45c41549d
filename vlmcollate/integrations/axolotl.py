"""A plugin of Axolotl that collates with this library; needs `pip install axolotl`.

Written for axolotl 0.19.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from axolotl.integrations.base import BasePlugin
from axolotl.loaders import load_processor
from pydantic import BaseModel
from transformers import AutoConfig

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError
from vlmcollate.models import collator_for
from vlmcollate.padding import FlattenedDocuments, PaddingStrategy, PadToLength, PadToLongest

_NEEDED = {
    "skip_prepare_dataset": (True, "or Axolotl tokenizes the rows itself"),
    "sample_packing": (False, "since it packs tokenized rows; set batch_flattening to pack"),
    "train_on_inputs": (False, "since only answers train; see train_on and weights"),
}
_READ_OTHERWISE: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "image_size": ((), "set the size of the processor"),
    "image_resize_algorithm": ((), "set the resampling of the processor"),
    "role_boundaries": ((), "turns are found by the chat template"),
    "eot_tokens": ((), "set vlmcollate.stop_tokens"),
    "roles_to_train": ((["assistant"],), "set vlmcollate.train_on, or weights of messages"),
    "train_on_eos": (("turn",), "the end of each answer trains"),
    "train_on_eot": (("turn",), "the end of each answer trains"),
    "field_messages": (("messages", "conversations"), "rename the column to 'messages'"),
    "message_property_mappings": (
        ({"role": "role", "content": "content"}, {"role": "from", "content": "value"}),
        "rename the keys of the messages",
    ),
    "message_field_training": ((), "rename the key to 'weight'"),
    "message_field_training_detail": ((), "give the parts of a message weights"),
}
"""The options that Axolotl's preparation of rows reads, with the values that change nothing."""


class CollatorArgs(BaseModel):
    """The section of this plugin in the configuration.

    Attributes:
        vlmcollate: The options of `collator_for`, such as `{"on_overlong": "drop"}`.
    """

    vlmcollate: dict[str, Any] | None = None


class CollatorPlugin(BasePlugin):  # type: ignore[misc]  # axolotl has no types here
    """Collates with the collator of the model's processor.

    `sequence_len` is its `max_length`, `excess_length_strategy`, if it is set, its `on_overlong`,
    and `chat_template_kwargs` its `template_kwargs`. The padding follows `pad_to_sequence_len` and
    `pad_to_multiple_of`; with `batch_flattening` a batch is one row of documents instead.

    Example:
        `plugins: [vlmcollate.integrations.axolotl.CollatorPlugin]`
    """

    def get_input_args(self) -> str:
        """See `BasePlugin`."""
        return f"{__name__}.CollatorArgs"

    def register(self, cfg: Mapping[str, Any]) -> None:
        """Checks the configuration.

        Raises:
            ConfigError: Another option of Axolotl contradicts the collator, or has no effect.
        """
        if not cfg.get("processor_type"):
            raise ConfigError(
                "the plugin needs a processor: found no processor_type, expected the name of a "
                "class of transformers; set processor_type: AutoProcessor"
            )
        for key, (expected, why) in _NEEDED.items():
            if bool(cfg.get(key)) is not expected:
                raise ConfigError(
                    f"{key} is wrong: found {cfg.get(key)!r}, expected {str(expected).lower()}, "
                    f"{why}; set {key}: {str(expected).lower()}"
                )
        _refuse_ignored(cfg, "")
        for number, dataset in enumerate(cfg.get("datasets") or []):
            _refuse_ignored(dataset, f"datasets[{number}].")

    def get_collator_cls_and_kwargs(
        self,
        cfg: Any,
        is_eval: bool = False,  # noqa: FBT001, FBT002  # axolotl's signature
    ) -> tuple[Callable[..., BaseCollator], dict[str, Any]]:
        """See `BasePlugin`; Axolotl calls the function with its tokenizer."""
        del is_eval
        return build_collator, {"cfg": cfg}


def _refuse_ignored(options: Mapping[str, Any], where: str) -> None:
    """Refuses options that the preparation of Axolotl would read, which the plugin skips."""
    for key, (known, remedy) in _READ_OTHERWISE.items():
        found = options.get(key)
        if found is not None and found not in known:
            raise ConfigError(
                f"{where}{key} has no effect with the plugin: found {found!r:.60}; {remedy}, and "
                "remove it"
            )


def build_collator(
    tokenizer: Any, *, cfg: Any, pad_to_multiple_of: int = 1, **_: object
) -> BaseCollator:
    """Builds the collator of a configuration.

    Args:
        tokenizer: The tokenizer of Axolotl, which the processor gets.
        cfg: The configuration.
        pad_to_multiple_of: The multiple that Axolotl pads to, at least `sequence_len` with
            `pad_to_sequence_len`.

    Raises:
        ConfigError: An option of the section `vlmcollate` is wrong.
    """
    processor = load_processor(cfg, tokenizer)
    if cfg.chat_template:
        processor.chat_template = tokenizer.chat_template
    options: dict[str, Any] = {"max_length": cfg.sequence_len, "counts": False}
    if cfg.batch_flattening:
        options["model_config"] = AutoConfig.from_pretrained(
            cfg.base_model_config or cfg.base_model, trust_remote_code=bool(cfg.trust_remote_code)
        )
    if cfg.excess_length_strategy:
        options["on_overlong"] = cfg.excess_length_strategy
    given = dict(cfg.vlmcollate or {})
    if given.get("shift_labels"):
        raise ConfigError(
            "vlmcollate.shift_labels does not suit Axolotl, whose models shift labels themselves; "
            "remove it"
        )
    variables = {**(cfg.chat_template_kwargs or {}), **(given.get("template_kwargs") or {})}
    options["padding"] = _padding(cfg, pad_to_multiple_of)
    return collator_for(processor, **{**options, **given, "template_kwargs": variables})


def _padding(cfg: Any, multiple_of: int) -> PaddingStrategy:
    if cfg.batch_flattening:
        return FlattenedDocuments()
    if cfg.pad_to_sequence_len:
        return PadToLength(length=multiple_of)
    return PadToLongest(multiple_of=multiple_of)
