"""The formats of datasets, and how an example becomes a `Conversation`."""

from vlmcollate.formats.base import DatasetFormat
from vlmcollate.formats.builtin import (
    AlpacaFormat,
    CauldronFormat,
    LlavaFormat,
    MessagesFormat,
    PairFormat,
    PrefixSuffixFormat,
    PromptCompletionFormat,
    PromptResponseFormat,
    QueryResponseFormat,
    QuestionAnswerFormat,
    TextFormat,
)
from vlmcollate.formats.examples import read_example
from vlmcollate.formats.fields import Fields
from vlmcollate.formats.reading import Reading
from vlmcollate.formats.registry import format_of, register_format
from vlmcollate.formats.unread import UnreadPolicy

__all__ = [
    "AlpacaFormat",
    "CauldronFormat",
    "DatasetFormat",
    "Fields",
    "LlavaFormat",
    "MessagesFormat",
    "PairFormat",
    "PrefixSuffixFormat",
    "PromptCompletionFormat",
    "PromptResponseFormat",
    "QueryResponseFormat",
    "QuestionAnswerFormat",
    "Reading",
    "TextFormat",
    "UnreadPolicy",
    "format_of",
    "read_example",
    "register_format",
]
