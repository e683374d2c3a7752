"""What the user may do next, as lines that can be pasted."""

import os
import re

from testbed.control.client import running_labs


def prefix() -> str:
    """How the caller starts a verb that changes something: with sudo, or as root of their own lab without."""
    own = os.geteuid() != 0 and any(lab.rootless for lab in running_labs())
    return "testbed" if own else "sudo testbed"


def ready_to_paste(lab_name: str, command: str) -> str:
    """A verb with its arguments as it has to be typed; with the lab's name where several run."""
    chosen = f" --lab {lab_name}" if len(running_labs()) > 1 else ""
    words, rest = re.split("(?= -- |  # |$)", command, maxsplit=1)
    return f"{prefix()} {words}{chosen}{rest}"


def next_commands(lab_name: str, *commands: str) -> None:
    """The last lines of a verb: what to do next, ready to be pasted."""
    print("\nnext:")
    for command in commands:
        print(f"  {ready_to_paste(lab_name, command)}")
