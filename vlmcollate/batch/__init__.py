"""Stacks samples into the tensors of a batch, and splits a batch into microbatches."""
