"""Anchors with a positive and negatives, for models that embed conversations.

Shapes: B examples, N negatives of all examples, R = 2B + N rows, T padded tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import attrs
import torch

from vlmcollate.collator import BaseCollator
from vlmcollate.conversation import Conversation, Message, TextPart
from vlmcollate.encode.stackable import check_stackable
from vlmcollate.errors import ConfigError, ConversationError, EmptyBatchError, SampleError
from vlmcollate.formats import MessagesFormat, TextFormat, format_of
from vlmcollate.formats.base import row_of
from vlmcollate.objectives.embedding_inputs import InputRow, Side
from vlmcollate.objectives.embedding_rows import input_rows
from vlmcollate.objectives.inputs import InputCollator, encode_input, read_input, stack_inputs
from vlmcollate.plain_values import plain_text
from vlmcollate.sample import EncodedSample
from vlmcollate.validators import an_instance_of, one_of

Layout = Literal["one_batch", "columns"]


@attrs.frozen(kw_only=True, eq=False)
class EncodedGroup:
    """The encoded inputs of one row.

    Attributes:
        anchor: The sample of the anchor.
        positive: The sample of what belongs to it.
        negatives: The samples of what does not.
    """

    STACKED_BY: ClassVar[str] = "EmbeddingCollator.stack"

    anchor: EncodedSample
    positive: EncodedSample
    negatives: tuple[EncodedSample, ...] = ()


def _instructions(instance: object, attribute: Any, value: object) -> None:
    del instance, attribute
    if not isinstance(value, Mapping) or not all(
        side in get_args(Side) and isinstance(text, str) for side, text in value.items()
    ):
        raise ConfigError(
            f"instructions is wrong: found {value!r:.60}, expected a dict of texts with the keys "
            f"{list(get_args(Side))}"
        )
    for side, text in value.items():
        try:
            plain_text(text, f"instructions[{side!r}]")
        except ConversationError as error:
            raise ConfigError(str(error)) from None


@attrs.frozen(eq=False)
class EmbeddingCollator(InputCollator[EncodedGroup]):
    """Collates anchors with a positive and any number of negatives, for contrastive losses.

    A row holds `anchor` or `query`, `positive` or `pos`, and `negative`, `negatives` or `neg`, if
    there are any, also as `negative_1`, `negative_2`. Each is a text, an image, a list of messages
    or of the parts of one, a dict with `text`, `image` and `instruction`, as for
    Qwen3-VL-Embedding, or a row in any format of `vlmcollate.formats`. `messages`,
    `positive_messages` and `negative_messages`, as in ms-swift, are read too, with
    `positive_images` and `negative_images`, a list for each of them. Other columns, such as
    `images`, belong to the anchor.

    Args:
        collator: The collator of single conversations.
        layout: `"one_batch"` makes one batch of all inputs: the anchors, the positives, and then
            all negatives. `"columns"` makes a batch of each column, whose keys begin with
            `anchor_`, `positive_` and `negative_`, or `negative_1_` and so on; its rows need
            equally many negatives.
        instructions: The system message of each kind of input, `"anchor"`, `"positive"` or
            `"negative"`, if it has none of its own and no `instruction`.
        generation_prompt: Whether the generation prompt follows an input that ends with a question,
            as in Qwen3-VL-Embedding.

    Example:
        >>> from vlmcollate import collator_for
        >>> from vlmcollate.testing import tiny_processor
        >>> collate = EmbeddingCollator(collator_for(tiny_processor()))
        >>> batch = collate([{"anchor": "A bird", "positive": "An emu", "negatives": ["A cat"]}])
        >>> len(batch["input_ids"]), batch["group_ids"]
        (3, tensor([0, 0, 0]))
    """

    layout: Layout = attrs.field(
        default="one_batch", validator=one_of(*get_args(Layout)), kw_only=True
    )
    instructions: Mapping[str, str] = attrs.field(
        factory=dict, validator=_instructions, kw_only=True
    )
    generation_prompt: bool = attrs.field(
        default=True, validator=an_instance_of(bool), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        """Refuses options of the collator that have no meaning here."""
        super().__attrs_post_init__()
        if self.instructions and self._text_column is not None:
            raise ConfigError(
                "instructions are system messages, which plain texts have not: found format="
                f"{self.collator.format!r:.60}; remove one of the two"
            )

    def encode(self, example: object) -> EncodedGroup:
        """Encodes the inputs of one row.

        Args:
            example: The row; see the class.

        Raises:
            SampleError: An input is missing or cannot be encoded; the path of the error begins with
                the input.
        """
        anchor, positive, *negatives = map(self._encode_input, input_rows(row_of(example)))
        return EncodedGroup(anchor=anchor, positive=positive, negatives=tuple(negatives))

    def _encode_input(self, given: InputRow) -> EncodedSample:
        try:
            return encode_input(
                self.untrained, self._read(given), generation_prompt=self.generation_prompt
            )
        except SampleError as error:
            where = given.place(error.where)
            raise type(error)(error.problem, where=where) from error.__cause__

    def _read(self, given: InputRow) -> Conversation:
        if given.form == "row":
            conversation = read_input(self.untrained, given.row)
        elif self._text_column is not None:
            conversation = self.untrained.read_conversation(self._plain_row(given))
        else:
            conversation = self._messages.read_conversation(given.row)
        text = given.instruction or self.instructions.get(given.side)
        if not text or conversation.messages[0].role == "system":
            return conversation
        system = Message(role="system", content=(TextPart(text),), is_string=True)
        return attrs.evolve(conversation, messages=(system, *conversation.messages))

    @cached_property
    def _messages(self) -> BaseCollator:
        """The collator of messages, which reads media from the folder of the collator's format."""
        read, own = MessagesFormat(), format_of(self.collator.format)
        if own is not None:
            read = attrs.evolve(
                read, media_root=own.media_root, keep_none_arguments=own.keep_none_arguments
            )
        changed: BaseCollator = attrs.evolve(self.untrained, format=read)
        return changed

    @property
    def _text_column(self) -> str | None:
        """The column of a format of plain texts; `None` for one of messages."""
        own = format_of(self.collator.format)
        return own.column if isinstance(own, TextFormat) else None

    def _plain_row(self, given: InputRow) -> Mapping[str, Any]:
        if given.form != "text" or given.instruction:
            raise ConversationError(
                f"holds messages or an instruction, but format={self.collator.format!r:.60} reads "
                "plain texts; remove the format, or write one text"
            )
        row = {key: value for key, value in given.row.items() if key != "messages"}
        return {**row, str(self._text_column): given.row["messages"][0]["content"]}

    def stack(self, encoded: Sequence[EncodedGroup]) -> dict[str, Any]:
        """Makes a batch of encoded rows.

        Args:
            encoded: What `encode` returned, at least one.

        Returns:
            With `layout="one_batch"`: `input_ids` and `attention_mask`, (R, T) int64, the family's
            token types, the media tensors of all rows, and `group_ids`, (R,) int64, the example of
            each row. With `layout="columns"` the same of each column, with prefixed keys and
            without `group_ids`.

        Raises:
            EmptyBatchError: There is no row.
            ConfigError: An item is of another kind; or the layout is `"columns"`, and the rows
                differ in their negatives.
        """
        check_stackable(encoded, EncodedGroup, of=self)
        if not encoded:
            raise EmptyBatchError("no row to stack; the batch is empty")
        anchors, positives = [g.anchor for g in encoded], [g.positive for g in encoded]
        if self.layout == "columns":
            return self._columns(anchors, positives, [group.negatives for group in encoded])
        negatives = [sample for group in encoded for sample in group.negatives]
        groups = [*range(len(encoded))] * 2
        groups += [number for number, group in enumerate(encoded) for _ in group.negatives]
        batch = stack_inputs(self.collator, [*anchors, *positives, *negatives])
        return {**batch, "group_ids": torch.tensor(groups)}

    def _columns(
        self,
        anchors: Sequence[EncodedSample],
        positives: Sequence[EncodedSample],
        negatives: Sequence[Sequence[EncodedSample]],
    ) -> dict[str, Any]:
        numbers = sorted({len(samples) for samples in negatives})
        if len(numbers) > 1:
            raise ConfigError(
                f"rows have {numbers[0]} and {numbers[-1]} negatives, of which no columns can be "
                'made; give all rows equally many, or choose layout="one_batch"'
            )
        columns = {"anchor": anchors, "positive": positives}
        for number, column in enumerate(zip(*negatives, strict=True), 1):
            columns["negative" if numbers == [1] else f"negative_{number}"] = column
        return {
            f"{name}_{key}": value
            for name, samples in columns.items()
            for key, value in stack_inputs(self.collator, samples).items()
        }
