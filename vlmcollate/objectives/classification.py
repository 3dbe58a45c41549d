"""Conversations with a label each, for models with a head of classes or numbers.

Shapes: B examples, T padded tokens, C classes or numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs
import torch

from vlmcollate.batch.stacking import fill_values
from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import ConfigError, EmptyBatchError
from vlmcollate.formats.base import row_of
from vlmcollate.objectives.inputs import InputCollator, encode_input, read_input, stack_inputs
from vlmcollate.objectives.label_model import check_model_loss, check_model_names
from vlmcollate.objectives.labels import READ_LABEL, Label, ProblemType, pop_label
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import an_instance_of, one_of


@attrs.frozen(kw_only=True, eq=False)
class EncodedInput:
    """One encoded conversation with its label.

    Attributes:
        sample: The sample of the conversation.
        label: The number of its class, or one number for each output of the model.
    """

    STACKED_BY: ClassVar[str] = "ClassificationCollator.stack"

    sample: EncodedSample
    label: Label


def _label_ids(instance: object, attribute: Any, value: object) -> None:
    del instance, attribute
    is_table = isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(k, int) and not isinstance(k, bool) and k >= 0
        for name, k in value.items()
    )
    if not is_table:
        raise ConfigError(
            f"label2id is wrong: found {value!r:.60}, expected a dict of names and their numbers, "
            "such as model.config.label2id"
        )


@attrs.frozen(eq=False)
class ClassificationCollator(InputCollator[EncodedInput]):
    """Collates conversations with a label each, for classification and regression.

    A row holds a conversation in any format of `vlmcollate.formats`, with or without a last answer,
    or a `text` and media such as `image` alone, and `labels` or `label` beside it.

    Args:
        collator: The collator of single conversations. Its `model_config`, if it is set, is
            compared with the other options and the padding, so that the model computes the loss
            of these labels.
        problem_type: The kind of label, as in the model's configuration:
            `"single_label_classification"`, the number or the name of a class;
            `"multi_label_classification"`, the names of all classes that hold, or a number from 0
            to 1 for each class; `"regression"`, a number, or a list of `num_labels` numbers.
        num_labels: The number of the model's outputs; that of `label2id`, or 1 for a regression, by
            default.
        label2id: The number of each class by its name.
        generation_prompt: Whether the generation prompt follows a conversation that ends with a
            question. The model reads the class off the last token.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> label2id = {"question": 0, "order": 1}
        >>> collate = ClassificationCollator(collator_for(tiny_processor()), label2id=label2id)
        >>> collate([{"prompt": "Shut the door.", "label": "order"}])["labels"]
        tensor([1])
    """

    problem_type: ProblemType = attrs.field(
        default="single_label_classification", validator=one_of(*READ_LABEL), kw_only=True
    )
    num_labels: int | None = attrs.field(default=None, kw_only=True)
    label2id: Mapping[str, int] = attrs.field(factory=dict, validator=_label_ids, kw_only=True)
    generation_prompt: bool = attrs.field(
        default=True, validator=an_instance_of(bool), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        """Refuses options that contradict each other or the model's configuration."""
        super().__attrs_post_init__()
        if self.collator.dummy_media != "never":
            raise ConfigError(
                "dummy media stands behind the last token, from which a model reads the class: "
                f'found dummy_media="{self.collator.dummy_media}"; set it to "never"'
            )
        self._check_number()
        if self.collator.model_config is not None:
            self._check_config(self.collator.model_config)

    def _check_number(self) -> None:
        number, named = self.num_labels, max(self.label2id.values(), default=-1) + 1
        if number is None and not named and self.problem_type != "regression":
            raise ConfigError("the number of classes is unknown; set num_labels or label2id")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise ConfigError(f"num_labels must be an int, found {number!r:.60}")
        if number is not None and number < max(named, 1):
            raise ConfigError(
                f"num_labels is too small: found {number}, expected at least {max(named, 1)}; "
                "raise it, or correct label2id"
            )

    def _check_config(self, config: Any) -> None:
        """Refuses a model with other outputs or another loss, or that pools a padding token."""
        number = getattr(config, "num_labels", self.outputs)
        if number != self.outputs:
            raise ConfigError(
                f"the model has {number} outputs, but labels have {self.outputs} classes or "
                "numbers; set num_labels in both"
            )
        check_model_loss(config, self.problem_type, self.outputs)
        check_model_names(config, self.label2id)
        pad = fill_values(self.collator.processor.tokenizer)["input_ids"]
        ignored = config.get_text_config().pad_token_id
        if ignored != pad:
            raise ConfigError(
                "the model would read the class off padding: its text config has pad_token_id="
                f"{ignored}, but batches are padded with {pad}; set pad_token_id in its text config"
            )

    @property
    def outputs(self) -> int:
        """The number of the model's outputs."""
        return self.num_labels or max(self.label2id.values(), default=0) + 1

    def encode(self, example: object) -> EncodedInput:
        """Encodes one row.

        Args:
            example: The row; see the class.

        Raises:
            SampleError: The row has no label of the kind, or cannot be encoded.
        """
        row = dict(row_of(example))
        where, value = pop_label(row)
        label = READ_LABEL[self.problem_type](value, where, self.label2id, self.outputs)
        conversation = read_input(self.untrained, row)
        sample = encode_input(
            self.untrained, conversation, generation_prompt=self.generation_prompt
        )
        return EncodedInput(sample=sample, label=label)

    def stack(self, encoded: Sequence[EncodedInput]) -> dict[str, Any]:
        """Makes a batch of encoded rows.

        Args:
            encoded: What `encode` returned, at least one.

        Returns:
            `input_ids` and `attention_mask`, (B, T) int64, the family's token types, the media
            tensors, and `labels`: (B,) int64 for one class; (B, C) float32 for several classes or
            numbers; (B,) float32 for one number.

        Raises:
            EmptyBatchError: There is no row.
            ConfigError: An item is of another kind.
        """
        check_stackable(encoded, EncodedInput, of=self)
        if not encoded:
            raise EmptyBatchError("no row to stack; the batch is empty")
        batch = stack_inputs(self.collator, [item.sample for item in encoded])
        is_class = self.problem_type == "single_label_classification"
        labels = torch.tensor(
            [item.label for item in encoded], dtype=torch.int64 if is_class else torch.float32
        )
        if self.problem_type == "regression" and self.outputs == 1:
            labels = labels[:, 0]
        return {**batch, "labels": labels}
