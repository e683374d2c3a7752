"""Starts threads whose work would be forgotten if the machine refused them: a pod may use every process for a while."""

import threading
import time

RETRY_S = 0.1


def start_when_possible(thread: threading.Thread) -> None:
    """Start a new thread; while a limit of processes is reached, wait and try again."""
    while True:
        try:
            thread.start()
            return
        except RuntimeError:  # can't start new thread
            time.sleep(RETRY_S)
