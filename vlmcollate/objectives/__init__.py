"""Batches for other objectives than the next token, over a collator of single conversations."""

from vlmcollate.objectives.classification import ClassificationCollator, EncodedInput
from vlmcollate.objectives.document_cuts import EncodedDocument
from vlmcollate.objectives.documents import DocumentCollator
from vlmcollate.objectives.embedding import EmbeddingCollator, EncodedGroup

__all__ = [
    "ClassificationCollator",
    "DocumentCollator",
    "EmbeddingCollator",
    "EncodedDocument",
    "EncodedGroup",
    "EncodedInput",
]
