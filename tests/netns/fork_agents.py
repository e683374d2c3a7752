"""Starts many agents at once: `fork_agents.py FILE`, JSON lines of namespace, log, environment and the agent's words.

Every agent is a process of its own, in a network namespace of its own, that runs the agent's own entry point. They are
forked from one that has imported what an agent imports and has no thread yet, because a hundred interpreters that
start on one machine would take half a minute of its processor, which on a hundred machines nobody sees.

Prints a line with the process ids once all are there and wait; with the first line of its standard input all of them
begin at the same moment. Then a line `PID CODE` for each that ends; ends with its standard input.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from agent.kernel.namespace import CLONE_NEWNET

PR_SET_PDEATHSIG = 1
"""Of prctl(2): what the kernel sends a process when its parent has ended."""


def become_agent(one: dict[str, object], gate: int) -> None:
    """Wait for the gate, enter the namespace, log to the file, run the agent and exit, in the child."""
    import ctypes

    code = 70
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.read(gate, 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        netns = os.open(f"/run/netns/{one['netns']}", os.O_RDONLY)
        if libc.setns(netns, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {one['netns']}")
        os.close(netns)
        log = os.open(str(one["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environment, words = one["environment"], one["words"]
        assert isinstance(environment, dict)
        assert isinstance(words, list)
        os.environ.update(environment)
        from agent.__main__ import run

        code = run(words, os.environ)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """See the module's text."""
    import agent.agent  # noqa: F401 - what every agent imports, once for all of them

    assert threading.active_count() == 1, "forking with threads is not safe"
    pids, (gate, opened) = [], os.pipe()
    for line in Path(sys.argv[1]).read_text().splitlines():
        pid = os.fork()
        if pid == 0:
            os.close(opened)
            become_agent(json.loads(line), gate)
        pids.append(pid)
    print(*pids, flush=True)
    sys.stdin.readline()
    os.close(opened)
    threading.Thread(target=_tell_ends, args=(len(pids),), daemon=True).start()
    sys.stdin.read()


def _tell_ends(count: int) -> None:
    for _ in range(count):
        pid, status = os.wait()
        print(pid, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
