"""SIGTERM outside the training loop."""

import signal

import pytest

from helpers.runs import send_self
from isometry.training.signals import Interrupted, sigterm_interrupts


def caught_as_a_failure() -> bool:
    """Whether code that turns all failures of a library into its own error also turns a signal."""
    try:
        send_self(signal.SIGTERM)
    except Exception:
        return True
    return False


def test_a_signal_is_no_failure_of_a_library():
    with pytest.raises(Interrupted, match="stopped; start again"), sigterm_interrupts(lambda: "start again"):
        assert not caught_as_a_failure()


def test_the_inner_advice_counts():
    with (
        pytest.raises(Interrupted, match="inner"),
        sigterm_interrupts(lambda: "outer"),
        sigterm_interrupts(lambda: "inner"),
    ):
        send_self(signal.SIGTERM)
