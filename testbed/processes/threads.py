"""Starts threads whose work would be forgotten if the machine refused them: a pod may use every process for a while."""

import threading
import time
from collections.abc import Callable

RETRY_S = 0.1


def in_background(name: str, work: Callable[[], object]) -> None:
    """Run `work` in a new thread, which does not keep the program alive; wait until that can be started."""
    start_when_possible(threading.Thread(target=work, name=name, daemon=True))


def start_when_possible(thread: threading.Thread) -> None:
    """Start a new thread; while a limit of processes is reached, wait and try again."""
    while True:
        try:
            thread.start()
            return
        except RuntimeError:  # can't start new thread
            time.sleep(RETRY_S)
