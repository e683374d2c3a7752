"""A backend that needs a look: its call is never lost."""

import threading

from agent.agent import Agent


class SetAfterTheLook(threading.Event):
    """Another thread sets it right after it was found clear."""

    def is_set(self) -> bool:
        found = super().is_set()
        self.set()
        return found


def test_trouble_that_comes_while_the_main_loop_looks_is_kept_for_its_next_round() -> None:
    agent = Agent.__new__(Agent)
    agent._trouble = SetAfterTheLook()
    assert not agent._trouble_came()
    assert agent._trouble_came()


def test_trouble_is_reported_once() -> None:
    agent = Agent.__new__(Agent)
    agent._trouble = threading.Event()
    agent._trouble.set()
    assert agent._trouble_came()
    assert not agent._trouble_came()
