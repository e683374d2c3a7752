"""The API server's process: `python -m testbed.api RUNDIR DIRECTORY READY_FD`, a listening socket as its stdin.

Started by `testbed.supervisor.api_process` inside the lab. DIRECTORY has its certificate and token.
"""

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path

from testbed.api.lab import AsyncLab
from testbed.api.server import ApiServer
from testbed.control.client import read_record

NICENESS = 10
"""Beside a client that asks without a pause, the lab and its verbs get the processor first."""


def yield_to_the_lab() -> None:
    """Give way to other processes, in this session and to other sessions: where the kernel shares the processor by
    session (CONFIG_SCHED_AUTOGROUP), the niceness of a process counts among those of its own only.
    """
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # not every kernel has it
        Path("/proc/self/autogroup").write_text(str(NICENESS))


def main() -> None:
    """Serve until the lab ends."""
    rundir, directory, ready = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    record = read_record(rundir)
    if record is None:
        sys.exit(f"error: {rundir}: no lab")

    def tell() -> None:
        os.write(ready, b"ready\n")
        os.close(ready)

    async def serve() -> None:
        token = (directory / "token").read_text()
        server = ApiServer(AsyncLab(record), token)
        await server.run(listener, directory / "api.pem", directory / "api.key", tell)

    yield_to_the_lab()
    with socket.socket(fileno=0) as listener:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
