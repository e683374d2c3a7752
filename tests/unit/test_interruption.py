"""Signals end a command once, and can be held while a step could not be undone."""

import os
import signal
from collections.abc import Iterator

import pytest

from testbed.host.interruption import ENDING, Interruption


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Give pytest its handlers back."""
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        # Below nohup or in the background of a script some are ignored.
        signal.signal(number, lambda *_: None)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_interrupts_and_the_next_one_leaves_the_clean_up_alone(number: signal.Signals) -> None:
    Interruption()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    for other in ENDING:
        os.kill(os.getpid(), other)


def test_a_signal_waits_while_it_is_held() -> None:
    interruption = Interruption()
    interruption.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        interruption.release()


def test_after_a_release_without_a_signal_the_next_one_interrupts() -> None:
    interruption = Interruption()
    interruption.hold()
    interruption.release()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGHUP)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Interruption()
    os.kill(os.getpid(), signal.SIGHUP)
