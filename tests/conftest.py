"""What holds for all tests: no hub, one thread, the hypothesis profiles, the order of the tests."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import sys
from importlib.metadata import version
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import just

from tests import fork_server

always = settings(
    deadline=None,  # a processor's first call takes seconds
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", always, max_examples=10, derandomize=True)
settings.register_profile("nightly", always, max_examples=100, derandomize=True)
settings.register_profile("deep", always, max_examples=500)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
settings.load_profile(PROFILE)
NIGHTLY = PROFILE != "quick"
"""Whether every law is tried on every family, with all its examples."""


def pytest_report_header() -> str:
    """Which versions are tested."""
    return ", ".join(f"{package} {version(package)}" for package in ("transformers", "torch"))


def pytest_configure(config: pytest.Config) -> None:
    """Prepares a process that runs tests, as the one that `pytest -n` starts first does not."""
    multiprocessing.set_forkserver_preload(["tests.warm_imports"])
    if config.getoption("numprocesses", default=None) and not hasattr(config, "workerinput"):
        return
    import torch
    from torch.utils.data import _utils
    from transformers import logging

    # an iterator of a DataLoader that an error ended waits for its workers when it is collected,
    # in the middle of another test; by default for five seconds each
    _utils.MP_STATUS_CHECK_INTERVAL = 0.2
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    if address := getattr(config, "workerinput", {}).get("fork_server"):
        fork_server.use(address)
    gc.set_threshold(10_000, 20, 20)
    _keep_freed_memory()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Starts the fork server of all workers."""
    node.workerinput["fork_server"] = fork_server.start()


def _keep_freed_memory() -> None:
    """Keeps freed memory for the next image; returning it to Linux takes a tenth of the time."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # of glibc
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 1 << 29)


def _group(item: pytest.Item) -> str:
    """Returns the processor that a test is parametrized with, or else its module."""
    from tests.processors import BUILDERS
    from tests.processors.cases import CASES

    spec = getattr(item, "callspec", None)
    for value in spec.params.values() if spec else ():
        if isinstance(value, str) and value in BUILDERS:
            return value
        if isinstance(value, str) and value in CASES:
            builder = CASES[value].build
            name = getattr(builder, "__name__", "")
            return name if BUILDERS.get(name) is builder else value
    return item.nodeid.split("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests of a processor one behind another, and on one worker of `pytest -n`.

    A worker then builds few processors, and one process holds few of them at a time. Modules
    precede processors, and many tests precede few: some modules take long, but the last processors
    have a test or two, so no worker waits for another at the end. The modules about data start
    processes, so they are the last modules: the fork server needs a while for its imports.
    """
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        group = mark.args[0] if mark else _group(item)
        if mark is None:
            item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)

    def place(group: str) -> tuple[bool, bool, int]:
        is_module = group.endswith(".py")
        return not is_module, is_module and "/data/" in group, -len(groups[group])

    order = sorted(groups, key=place)
    items[:] = [item for group in order for item in groups[group]]
    given(just(0))(lambda _: None)()  # Hypothesis keeps its generator, which must not be frozen
    gc.freeze()  # spares each collection of garbage the objects of all that is imported


@pytest.fixture(scope="session", autouse=True)
def unchanged_processors():
    """Fails if a test has changed a processor that others use."""
    from tests.processors import changed_processors

    yield
    assert not changed_processors(), "use tests.processors.build or with_template"


@pytest.fixture(scope="session", autouse=True)
def shared_process():
    """One other process for all collators that are checked, once one is."""
    from tests.forking import ForkedProcess
    from vlmcollate.testing import another_process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(another_process, "AnotherProcess", ForkedProcess)
        with another_process.another_process():
            yield


@pytest.fixture
def finished_pixels(monkeypatch):
    """The batches of bytes that were made floats, in order."""
    from vlmcollate.pixels import PixelBytes

    calls = []
    plain = PixelBytes.finished

    def finished(self, *args):
        calls.append(self)
        return plain(self, *args)

    monkeypatch.setattr(PixelBytes, "finished", finished)
    return calls
