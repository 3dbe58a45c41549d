"""Batches for other objectives than the next token, over a collator of single conversations."""

from vlmcollate.objectives.classification import ClassificationCollator, EncodedInput

__all__ = ["ClassificationCollator", "EncodedInput"]
