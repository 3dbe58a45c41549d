"""What holds for all tests: no hub, one thread, and how many examples hypothesis tries."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import logging

from vlmcollate.testing.another_process import another_process

logging.set_verbosity_error()
torch.set_num_threads(1)

always = settings(
    deadline=None,  # a processor's first call takes seconds
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", always, max_examples=15, derandomize=True)
settings.register_profile("deep", always, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_report_header() -> str:
    """Which versions are tested."""
    import transformers

    return f"transformers {transformers.__version__}, torch {torch.__version__}"


@pytest.fixture(scope="session", autouse=True)
def shared_process():
    """One other process for all collators that are checked, once one is."""
    with another_process():
        yield
