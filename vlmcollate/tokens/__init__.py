"""The tokenizer as the collators need it: its tokens, their offsets, and tiktoken's."""
