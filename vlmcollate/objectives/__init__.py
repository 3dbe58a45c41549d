"""Batches for other objectives than the next token, over a collator of single conversations."""

from vlmcollate.objectives.classification import ClassificationCollator, EncodedInput
from vlmcollate.objectives.completions import CompletionsCollator, EncodedCompletions
from vlmcollate.objectives.documents import DocumentCollator
from vlmcollate.objectives.embedding import EmbeddingCollator, EncodedGroup
from vlmcollate.objectives.encoded_document import EncodedDocument

__all__ = [
    "ClassificationCollator",
    "CompletionsCollator",
    "DocumentCollator",
    "EmbeddingCollator",
    "EncodedCompletions",
    "EncodedDocument",
    "EncodedGroup",
    "EncodedInput",
]
