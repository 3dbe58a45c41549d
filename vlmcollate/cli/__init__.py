"""The `vlmcollate` command: one module per command, wired in `app`.

Importing a command's module is cheap. Torch and transformers are imported when a command runs, so
that `--help` and `--version` need not wait for them.
"""

import sys


def main() -> None:
    """Runs the command line, or names the extra that installs what it needs."""
    try:
        from vlmcollate.cli.app import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit(
            f"error: the command needs {error.name}, which is not installed; "
            "run `pip install 'vlmcollate[cli]'`"
        )
    run()
