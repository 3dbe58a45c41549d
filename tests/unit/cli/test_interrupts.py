"""Ctrl-C inside a command."""

from __future__ import annotations

import signal

import pytest

from vlmcollate.cli.interrupts import end_soon_after_interrupt


@pytest.fixture(autouse=True)
def _own_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_interrupt_ends_nothing_that_ends_the_command():
    done = []

    def interrupted():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            done.append("processes ended")

    with pytest.raises(KeyboardInterrupt), end_soon_after_interrupt(lambda: None):
        interrupted()
    signal.raise_signal(signal.SIGINT)
    assert done == ["processes ended"]


def test_the_handler_returns_after_a_command_that_ended_by_itself():
    with end_soon_after_interrupt(lambda: None):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_that_ignores_interrupts_keeps_ignoring_them():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with end_soon_after_interrupt(lambda: None):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
