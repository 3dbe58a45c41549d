"""The `vlmcollate` command: one module per command, wired in `app`.

Importing a command's module is cheap. Torch and transformers are imported when a command runs, so
that `--help` and `--version` need not wait for them.
"""
