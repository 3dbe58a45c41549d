"""Tokenizers with character offsets, based on `tokenizers` or `tiktoken`."""
