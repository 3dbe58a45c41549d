"""What users run on their own collators: processors and models that need no download."""

from vlmcollate.testing.processors import tiny_model, tiny_processor

__all__ = ["tiny_model", "tiny_processor"]
