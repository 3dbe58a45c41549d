"""Fast starts of the processes that prepare datasets."""

import pytest


@pytest.fixture(autouse=True)
def forked_processes(monkeypatch):
    """Forks the processes of this Python from the fork server; `Script` forks those of scripts."""
    monkeypatch.setattr("vlmcollate.data.processes._START_METHOD", "forkserver")
