"""From samples to the tensors of a batch, and from a batch to its microbatches."""
