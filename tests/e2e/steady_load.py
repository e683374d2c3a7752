"""A steady stream of requests from a pod of the lab to one address, each on a connection of its own."""

import json
import subprocess
from dataclasses import dataclass

from tests.e2e.command import ELSEWHERE, TESTBED, environment_with
from tests.e2e.lab import Lab

REQUESTS_PER_S = 200
LIMIT_S = 2.0
"""A request that is not answered by then has failed."""

# Standard library only, because it runs in a container. It ends with its standard input.
SENDER = """
import asyncio, json, sys, time

host, port, rate, limit_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
sent, failed, begun = 0, [], time.monotonic()

async def ask():
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET /hostname HTTP/1.0\\r\\n\\r\\n")
        answer = await reader.read()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise OSError("half an answer" if answer else "closed without an answer")
    finally:
        writer.close()

async def attempt():
    at = time.monotonic() - begun
    try:
        await asyncio.wait_for(ask(), limit_s)
    except Exception as error:
        failed.append([round(at, 3), str(error) or type(error).__name__])

async def main():
    global sent
    end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    running, due = set(), time.monotonic()
    while not end.done():
        task = asyncio.create_task(attempt())
        sent += 1
        running.add(task)
        task.add_done_callback(running.discard)
        # On a machine that is busy it catches up for a moment, and no longer.
        due = max(due + 1 / rate, time.monotonic() - 0.1)
        await asyncio.sleep(max(0, due - time.monotonic()))
    await asyncio.gather(*running)
    print(json.dumps({"sent": sent, "failed": failed, "seconds": time.monotonic() - begun}))

asyncio.run(main())
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the requests."""

    sent: int
    seconds: float
    failed: tuple[tuple[float, str], ...]
    """When (seconds since the begin) and why."""

    @property
    def trouble_s(self) -> float:
        """Return the time from the first failed request to the last."""
        times = sorted(at for at, _ in self.failed)
        return times[-1] - times[0] if times else 0.0

    @property
    def rate(self) -> float:
        """Return the mean rate in requests per second."""
        return self.sent / self.seconds


class SteadyLoad:
    """Runs from its making until `stop`."""

    def __init__(self, lab: Lab, sender: str, host: str, port: int) -> None:
        program = ["python3", "-c", SENDER, host, str(port), str(REQUESTS_PER_S), str(LIMIT_S)]
        self._process = subprocess.Popen(
            [*TESTBED, "exec", "-i", sender, "--", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ELSEWHERE,
            env=environment_with(lab.environment),
        )

    def stop(self) -> Outcome:
        """End it and say how it went."""
        out, errors = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, errors.decode()
        said = json.loads(out)
        return Outcome(said["sent"], said["seconds"], tuple((at, why) for at, why in said["failed"]))
