"""The `vlmcollate` command."""
