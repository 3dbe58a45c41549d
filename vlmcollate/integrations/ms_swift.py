"""A template of ms-swift that hands over to a collator; needs `pip install ms-swift`.

Written for ms-swift 4.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from swift.template import (
    MaxLengthError,
    StdTemplateInputs,
    Template,
    TemplateMeta,
    register_template,
)

from vlmcollate.collator import BaseCollator
from vlmcollate.errors import ConfigError, SampleTooLongError
from vlmcollate.models import collator_for
from vlmcollate.padding import FlattenedDocuments

_ON_OVERLONG = {"raise": "raise", "right": "truncate"}
"""The policy of a collator for each `truncation_strategy` that it has."""
_SPELLED = {"raise": "delete"}
"""The values of the command line that a template knows by another name."""
_SUITABLE: Mapping[str, tuple[Any, ...]] = {
    "task_type": ("causal_lm",),
    "truncation_strategy": tuple(_ON_OVERLONG),
    "sequence_parallel_size": (1,),
    "padding_side": ("right",),
    "max_pixels": (None,),
    "use_chat_template": (True,),
    "enable_thinking": (False,),
    "preserve_thinking": (None,),
    "response_prefix": (None,),
}
"""The values of the options of ms-swift that the template can serve."""
_UNSUITABLE = {
    "shift_labels": "ms-swift shifts labels itself",
    "split_turns": "a row is one sample; choose turns with train_on",
}
"""The options of a collator that ms-swift cannot follow."""
_TRAIN_ON = {"default": "all_turns", "last_round": "last_turn"}
"""The choice of a collator for each `loss_scale` that it has."""
_COLUMNS = ("tools", "images", "videos", "audios", "objects", "chat_template_kwargs")


@dataclass
class CollatorTemplateMeta(TemplateMeta):  # type: ignore[misc]  # ms-swift has no types here
    """The description of a template that collates, with the options of the collator."""

    options: dict[str, Any] = field(default_factory=dict)


class CollatorTemplate(Template):  # type: ignore[misc]  # likewise
    """Encodes rows and makes batches with the collator of the model's processor.

    It trains causal language models; inference needs the model's own template. `max_length`,
    `truncation_strategy` and `system` are those of ms-swift, and so is a `loss_scale` of
    `last_round`, unless `train_on` is set. With `packing` or `padding_free`, a batch is one row of
    documents.

    Raises:
        ConfigError: An option of ms-swift or of the collator does not suit.
    """

    support_padding_free = True

    def init_processor(self, processor: Any) -> None:
        """See `Template`."""
        super().init_processor(processor)
        if processor is None:
            return
        for name, known in _SUITABLE.items():
            found = getattr(self, name)
            if found not in known:
                expected = " or ".join(repr(_SPELLED.get(value, value)) for value in known)
                raise ConfigError(
                    f"{name} does not suit the template: found {found!r}, expected {expected}; "
                    "change it, or use another template"
                )
        if self._turns not in _TRAIN_ON:
            raise ConfigError(
                f"loss_scale does not suit the template: found {self._turns!r}, expected "
                f"{' or '.join(map(repr, _TRAIN_ON))}; set train_on in register_collator"
            )
        for name, why in _UNSUITABLE.items():
            if self.template_meta.options.get(name):
                raise ConfigError(
                    f"{name} does not suit the template, since {why}; remove it from "
                    "register_collator"
                )
        _ = self.padded  # its options are checked before the first row

    @property
    def _turns(self) -> str:
        """The `loss_scale` of ms-swift, by its name."""
        scale = self.loss_scale
        plain = type(scale).__name__ == "LossScale"
        return str(scale.base_strategy) if plain else type(scale).__name__

    @cached_property
    def padded(self) -> BaseCollator:
        """The collator, which pads."""
        return self._collator()

    @cached_property
    def flattened(self) -> BaseCollator:
        """The collator that makes one row of documents."""
        return self._collator(padding=FlattenedDocuments(), model_config=self.config)

    def _collator(self, **options: Any) -> BaseCollator:
        given = {
            "max_length": self.max_length,
            "on_overlong": _ON_OVERLONG[self.truncation_strategy],
            "counts": False,
            "train_on": _TRAIN_ON[self._turns],
        }
        return collator_for(self.processor, **{**given, **self.template_meta.options, **options})

    def _encode_truncated(self, inputs: StdTemplateInputs) -> dict[str, Any]:
        if not self.is_training:
            raise ConfigError(
                f"the template {self.template_meta.template_type!r} trains only: found the mode "
                f"{self.mode!r}; set template to the model's own for inference"
            )
        try:
            with torch.inference_mode(mode=False):  # or training cannot save the tensors
                sample = self.padded.encode(example_of(inputs, self._system))
        except SampleTooLongError as error:  # which ms-swift drops, unless strict is set
            raise MaxLengthError(str(error)) from error
        return {
            "input_ids": sample.input_ids.tolist(),
            "labels": sample.labels.tolist(),
            "length": len(sample),
            "sample": sample,
        }

    @property
    def _system(self) -> str | None:
        """The system message of rows without one, as `--system` sets it."""
        default: str | None = self.template_meta.default_system
        return default

    def _data_collator(
        self, batch: Sequence[Mapping[str, Any]], *, padding_to: int | None = None
    ) -> dict[str, Any]:
        if padding_to is not None or self.use_megatron:
            raise ConfigError(
                f"the template does not pad for Megatron or LongLoRA: found "
                f"padding_to={padding_to}, expected None; use the model's own template"
            )
        collator = self.flattened if self.padding_free else self.padded
        found = collator.stack([row["sample"] for row in batch])
        if "loss_weights" in found:
            found["loss_scale"] = found.pop("loss_weights")
        if self.padding_free and found["position_ids"].ndim == 3:
            found["text_position_ids"] = found["position_ids"][0]
        return found


def example_of(inputs: StdTemplateInputs, default_system: str | None = None) -> dict[str, Any]:
    """Returns the example of a row of ms-swift.

    Args:
        inputs: The row, whose text has a tag for each media item, such as `<image>`.
        default_system: The system message of a row without one; `None` for that of the chat
            template.
    """
    text = default_system if inputs.system is None else inputs.system
    system = [] if text is None else [{"role": "system", "content": text}]
    columns = {name: getattr(inputs, name) for name in _COLUMNS}
    return {
        "messages": [*system, *inputs.messages],
        **{name: value for name, value in columns.items() if value},
    }


def register_collator(template_type: str = "vlmcollate", **options: Any) -> None:
    """Registers a template; call it in a file that `external_plugins` names.

    Args:
        template_type: The name of the template, as `template` selects it.
        **options: The options of `collator_for`.

    Example:
        `register_collator(train_on="last_turn")`
    """
    register_template(
        CollatorTemplateMeta(
            template_type,
            prefix=[],
            prompt=["{{QUERY}}"],
            chat_sep=[],
            suffix=[],
            system_prefix=["{{SYSTEM}}"],
            template_cls=CollatorTemplate,
            options=options,
        ),
        exist_ok=True,
    )
