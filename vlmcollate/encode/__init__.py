"""Functions that encode one sample, below the collator."""
