"""The user's next commands, ready to be pasted."""

import os
import re

from testbed.control.client import running_labs


def prefix() -> str:
    """Return the caller's prefix for verbs that change something: sudo, or nothing as root of their own
    rootless lab.
    """
    own = os.geteuid() != 0 and any(lab.rootless for lab in running_labs())
    return "testbed" if own else "sudo testbed"


def ready_to_paste(lab_name: str, command: str) -> str:
    """Return a verb with its arguments as typed, also inside `$(…)`; with the lab's name if several run."""
    chosen = f" --lab {lab_name}" if len(running_labs()) > 1 else ""
    before, opening, verb = command.rpartition("$(")
    words, rest = re.split(r"(?= -- |  # |\)$|$)", verb, maxsplit=1)
    return f"{before}{opening}{prefix()} {words}{chosen}{rest}"


def next_commands(lab_name: str, *commands: str) -> None:
    """Print the last lines of a verb: the next commands, ready to be pasted."""
    print("\nnext:")
    for command in commands:
        print(f"  {ready_to_paste(lab_name, command)}")
