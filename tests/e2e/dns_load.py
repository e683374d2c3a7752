"""Steady questions to the cluster's DNS from a pod, and how soon new answers are there."""

import json
import subprocess
from dataclasses import dataclass

from tests.e2e.command import ELSEWHERE, TESTBED, environment_with
from tests.e2e.lab import Lab

QUESTIONS_PER_S = 200
LIMIT_S = 2.0
"""A question that is not answered by then is lost; nothing is asked twice."""

# Standard library only, because it runs in a container. «NAME ADDRESS» on its standard input asks until NAME has only
# that address and prints the seconds; the end of its standard input ends it. Every tenth steady question goes by TCP.
ASKER = """
import json, os, socket, struct, sys, threading, time

server, name, address, rate, limit_s = (*sys.argv[1:4], float(sys.argv[4]), float(sys.argv[5]))

def question(name):
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return os.urandom(2) + struct.pack("!5H", 0, 1, 0, 0, 0) + labels + struct.pack("!xHH", 1, 1)

def exchange(asked, tcp):
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as asker:
        asker.settimeout(limit_s)
        asker.connect((server, 53))
        asker.sendall(struct.pack("!H", len(asked)) + asked if tcp else asked)
        said = asker.recv(4096)
        while tcp and (len(said) < 2 or len(said) < 2 + struct.unpack_from("!H", said)[0]):
            more = asker.recv(4096)
            if not more:
                raise OSError("closed in the middle of an answer")
            said += more
        return said[2:] if tcp else said

def ask(name, tcp=False):
    asked = question(name)
    said = exchange(asked, tcp)
    number, flags, _, count = struct.unpack_from("!4H", said)
    if said[:2] != asked[:2] or flags & 0xF not in (0, 3):
        raise OSError(f"a wrong answer, code {flags & 0xF}")
    return sorted(socket.inet_ntoa(said[at + 12:at + 16]) for at in range(len(asked), len(asked) + 16 * count, 16))

sent, failed, done, begun = 0, [], threading.Event(), time.monotonic()

def steadily():
    global sent
    due = time.monotonic()
    while not done.is_set():
        sent += 1
        try:
            if (found := ask(name, tcp=sent % 10 == 0)) != [address]:
                raise OSError(f"another answer: {found}")
        except OSError as error:
            failed.append([round(time.monotonic() - begun, 3), str(error) or type(error).__name__])
        due = max(due + 1 / rate, time.monotonic() - 0.1)
        time.sleep(max(0, due - time.monotonic()))

steady = threading.Thread(target=steadily)
steady.start()
for line in sys.stdin:
    wanted, *there = line.split()
    since = time.monotonic()
    while time.monotonic() < since + 20:
        try:
            if ask(wanted) == sorted(there):
                break
        except OSError:
            pass
        time.sleep(0.005)
    print(json.dumps(time.monotonic() - since), flush=True)
done.set()
steady.join()
print(json.dumps({"sent": sent, "failed": failed, "seconds": time.monotonic() - begun}))
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the steady questions."""

    sent: int
    seconds: float
    failed: tuple[tuple[float, str], ...]
    """When (seconds since the begin) and why."""

    @property
    def rate(self) -> float:
        """Return the mean rate in questions per second."""
        return self.sent / self.seconds

    @property
    def trouble_s(self) -> float:
        """Return the time from the first lost question to the last."""
        times = sorted(at for at, _ in self.failed)
        return times[-1] - times[0] if times else 0.0


class Questions:
    """For `name`, which has `address`; runs from its making until `stop`."""

    def __init__(self, lab: Lab, asker: str, name: str, address: str) -> None:
        program = ["python3", "-c", ASKER, "10.96.0.10", name, address, str(QUESTIONS_PER_S), str(LIMIT_S)]
        self._process = subprocess.Popen(
            [*TESTBED, "exec", "-i", asker, "--", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ELSEWHERE,
            env=environment_with(lab.environment),
        )

    def expect(self, name: str, *addresses: str) -> None:
        """Ask for `name` from now on until it has exactly these addresses; `seconds` returns how long it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {' '.join(addresses)}\n".encode())
        self._process.stdin.flush()

    def seconds(self) -> float:
        """Return the time from the oldest unasked `expect` to its answer; 20 if it never came."""
        assert self._process.stdout is not None
        return float(json.loads(self._process.stdout.readline()))

    def stop(self) -> Outcome:
        """End it and say how it went."""
        out, errors = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, errors.decode()
        said = json.loads(out)
        return Outcome(said["sent"], said["seconds"], tuple((at, why) for at, why in said["failed"]))
