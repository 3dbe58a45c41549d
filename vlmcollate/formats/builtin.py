"""The formats of public datasets, in the order in which they are tried."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from vlmcollate.conversation import Message
from vlmcollate.errors import ConversationError
from vlmcollate.formats.base import DatasetFormat
from vlmcollate.formats.fields import Fields, as_list, parsed
from vlmcollate.formats.media_columns import PLAIN_TEXT
from vlmcollate.formats.messages import read_messages
from vlmcollate.formats.pairs import is_text, message, read_history
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.weights import pop_weight
from vlmcollate.plain_values import describe, unwrap
from vlmcollate.validators import an_instance_of


@attrs.frozen(kw_only=True)
class _ListFormat(DatasetFormat):
    """Reads a list of messages under one of several keys."""

    keys: ClassVar[tuple[str, ...]]

    def reads(self, example: Mapping[str, Any]) -> bool:
        """See `DatasetFormat`."""
        return any(unwrap(example.get(key)) is not None for key in self.keys)

    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """See `DatasetFormat`."""
        key = next(iter(fields.named(*self.keys)), self.keys[0])
        return read_messages(fields.pop(key), key, reading)


@attrs.frozen(kw_only=True)
class MessagesFormat(_ListFormat):
    """A list of messages under `messages`, `conversation` or `chat`.

    The spellings of OpenAI (chat, and the parts of responses), Hugging Face, TRL, LLaMA-Factory and
    ms-swift.
    """

    name = "messages"
    keys = ("messages", "conversation", "chat")


@attrs.frozen(kw_only=True)
class LlavaFormat(_ListFormat):
    """A list of messages under `conversations`, as ShareGPT, LLaVA and Qwen's fine-tuning code."""

    name = "llava"
    keys = ("conversations",)


@attrs.frozen(kw_only=True)
class CauldronFormat(DatasetFormat):
    """`images` and `texts`, each a `user` and an `assistant`, as The Cauldron and FineVision."""

    name = "cauldron"

    def reads(self, example: Mapping[str, Any]) -> bool:
        """See `DatasetFormat`."""
        texts = unwrap(example.get("texts"))
        first = unwrap(texts[0]) if isinstance(texts, list | tuple) and texts else None
        return isinstance(first, Mapping) and {"user", "assistant"} <= first.keys()

    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """See `DatasetFormat`."""
        found: list[Message] = []
        for i, item in enumerate(as_list(fields.pop("texts"), "texts")):
            where, turn = f"texts[{i}]", unwrap(item)
            if not isinstance(turn, Mapping):
                raise ConversationError(f"expected a turn, found {describe(turn)}", where=where)
            turn_fields = Fields(turn, where)
            found += [
                message(role, turn_fields.pop(role), f"{where}.{role}")
                for role in ("user", "assistant")
            ]
            reading.leave(turn_fields)
        return tuple(found)


@attrs.frozen(kw_only=True)
class PromptCompletionFormat(DatasetFormat):
    """`prompt` and `completion`, strings or lists of messages; only the completion trains."""

    name = "prompt_completion"

    def reads(self, example: Mapping[str, Any]) -> bool:
        """See `DatasetFormat`."""
        return all(unwrap(example.get(key)) is not None for key in ("prompt", "completion"))

    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """See `DatasetFormat`."""
        value = fields.pop("prompt")
        prompt = _as_messages(value, "user", "prompt", reading)
        _check_trains_nothing(value)
        answer = _as_messages(fields.pop("completion"), "assistant", "completion", reading)
        if prompt[-1].is_prefix:
            raise ConversationError(
                "the last message of the prompt is a prefix, which the completion would follow as "
                "another message; write it into the completion",
                where="prompt",
            )
        for i, asked in enumerate(prompt):
            if any(part.weight for part in asked.content):
                raise _trains(f"prompt[{i}]")
        return (*(asked.untrained() for asked in prompt), *answer)


def _trains(where: str) -> ConversationError:
    return ConversationError(
        "has a weight, but only the completion trains; remove the weight, or put all messages "
        "under 'messages'",
        where=where,
    )


def _check_trains_nothing(prompt: Any) -> None:
    """Refuses messages of a prompt that state that they train."""
    if isinstance(prompt, str) and not MESSAGE_LIST.match(prompt):
        return
    for i, item in enumerate(as_list(prompt, "prompt")):
        if pop_weight(Fields(parsed(unwrap(item), "", "{"), f"prompt[{i}]")):
            raise _trains(f"prompt[{i}]")


def _as_messages(value: Any, role: str, where: str, reading: Reading) -> tuple[Message, ...]:
    if isinstance(value, str) and not MESSAGE_LIST.match(value):
        return (message(role, value, where),)
    return read_messages(value, where, reading)


MESSAGE_LIST = re.compile(r'\s*\[\s*\{\s*"(role|from|content|value)"\s*:')
"""The beginning of a JSON list of messages, which other JSON in an answer does not have."""


@attrs.frozen(kw_only=True)
class AlpacaFormat(DatasetFormat):
    """`instruction` with an optional `input`, and `output`; earlier turns under `history`."""

    name = "alpaca"
    columns = ("instruction", "output")

    def reads(self, example: Mapping[str, Any]) -> bool:
        """See `DatasetFormat`."""
        return is_text(example, "instruction", "output")

    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """See `DatasetFormat`."""
        del reading
        asked = [fields.pop("instruction"), fields.pop("input") or ""]
        for text, where in zip(asked, ("instruction", "input"), strict=True):
            message("user", text, where)
        question = "\n".join(filter(None, asked))
        return (
            *read_history(fields),
            message("user", question, "instruction"),
            message("assistant", fields.pop("output"), "output"),
        )


@attrs.frozen(kw_only=True)
class PairFormat(DatasetFormat):
    """A question and its answer under two keys; earlier turns under `history`."""

    columns: ClassVar[tuple[str, ...]]
    """The names of the two, the question first."""

    def reads(self, example: Mapping[str, Any]) -> bool:
        """See `DatasetFormat`."""
        return is_text(example, *self.columns)

    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """See `DatasetFormat`."""
        del reading
        question, answer = self.columns
        return (
            *read_history(fields),
            message("user", fields.pop(question), question),
            message("assistant", fields.pop(answer), answer),
        )


@attrs.frozen(kw_only=True)
class QueryResponseFormat(PairFormat):
    """`query` and `response`, as ms-swift."""

    name, columns = "query_response", ("query", "response")


@attrs.frozen(kw_only=True)
class PromptResponseFormat(PairFormat):
    """`prompt` and `response`, of which only the response trains."""

    name, columns = "prompt_response", ("prompt", "response")


@attrs.frozen(kw_only=True)
class QuestionAnswerFormat(PairFormat):
    """`question` and `answer`."""

    name, columns = "question_answer", ("question", "answer")


@attrs.frozen(kw_only=True)
class PrefixSuffixFormat(PairFormat):
    """`prefix` and `suffix`, as PaliGemma."""

    name, columns = "prefix_suffix", ("prefix", "suffix")


@attrs.frozen(kw_only=True)
class TextFormat(DatasetFormat):
    """Plain text with media, for continued pretraining; only when it is chosen.

    No chat template writes it. All text trains, and so does the tokenizer's eos token behind it,
    which separates the texts of a pack. Media does not train.

    Args:
        column: The column of the text, in which tags such as `<image>` are the places of media.
    """

    name = "text"
    is_automatic = False
    is_plain_text = True

    column: str = attrs.field(default="text", validator=an_instance_of(str))

    def reads(self, example: Mapping[str, Any]) -> bool:
        """See `DatasetFormat`."""
        return unwrap(example.get(self.column)) is not None

    def read_fields(self, fields: Fields, reading: Reading) -> tuple[Message, ...]:
        """See `DatasetFormat`."""
        del reading
        weight = pop_weight(fields)
        text = message(PLAIN_TEXT, fields.pop(self.column), self.column)
        return (attrs.evolve(text, weight=1.0 if weight is None else weight),)


FORMATS: tuple[DatasetFormat, ...] = (
    MessagesFormat(),
    LlavaFormat(),
    CauldronFormat(),
    PromptCompletionFormat(),
    AlpacaFormat(),
    QueryResponseFormat(),
    PromptResponseFormat(),
    QuestionAnswerFormat(),
    PrefixSuffixFormat(),
    TextFormat(),
)
"""The built-in formats, in the order in which they are tried."""
