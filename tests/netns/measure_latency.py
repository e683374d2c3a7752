"""TCP ping-pong pod to pod by kernel vxlan, by the native data path, and by the least that user space can do (relay.c).

    sudo .venv/bin/python -m tests.netns.measure_latency [ROUNDS] [--one-core]

Rounds are interleaved: each path in turn, a second each, half the round trip as sockperf counts it. `--one-core` keeps
both programs that talk and all who carry between them on one core, which takes the scheduler's choices out.
"""

import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.netns.conftest import Namespace
from tests.netns.test_udp_backend import LEASES, Node, make_nodes
from tests.waiting import wait_until

SOURCE = Path(__file__).with_name("relay.c")
PORT = 9000
POD2 = "10.0.90.2"


class Paths:
    """Two nodes with three ways between them; `take` chooses one."""

    def __init__(self, directory: Path, undo: ExitStack, prefix: Sequence[str]) -> None:
        self._prefix = prefix
        self._undo = undo
        self._nodes = make_nodes(lambda name: Namespace(f"lat-{name}", undo), directory, ("native", "native"))
        program = directory / "relay"
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, SOURCE], check=True)
        for node, other in zip(self._nodes, reversed(self._nodes), strict=True):
            node.start()
            assert node.process is not None
            if prefix:
                subprocess.run(["taskset", "-apc", "1", str(node.process.pid)], check=True, stdout=subprocess.DEVNULL)
            node.meet_all()
            self._add_vxlan(node, other)
            self._add_relay(node, other, program)

    def _add_vxlan(self, node: Node, other: Node) -> None:
        addresses = ["local", LEASES[node.subnet], "remote", LEASES[other.subnet]]
        node.namespace.run(["ip", "link", "add", "vx", "type", "vxlan", "id", "1", "dstport", "4789", *addresses])
        node.namespace.run(["ip", "link", "set", "vx", "mtu", "1450", "up"])
        node.namespace.run(["ip", "address", "add", self._hop(node) + "/24", "dev", "vx"])

    def _hop(self, node: Node) -> str:
        return f"10.9.0.{1 + self._nodes.index(node)}"

    def _add_relay(self, node: Node, other: Node, program: Path) -> None:
        command = [*self._prefix, str(program), "relay", LEASES[node.subnet], LEASES[other.subnet], str(PORT)]
        process = node.namespace.popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        node.namespace.run(["ip", "link", "set", "relay", "mtu", "1472", "up"])

    def take(self, path: str) -> None:
        """Send packets between the pods' subnets by this path from now on."""
        for node, other in zip(self._nodes, reversed(self._nodes), strict=True):
            ways = {
                "vxlan": ["via", self._hop(other), "dev", "vx"],
                "native": ["dev", "flannel0"],
                "relay": ["dev", "relay"],
            }
            node.namespace.run(["ip", "route", "replace", other.subnet, *ways[path]])

    def ping_pong(self) -> tuple[float, float]:
        """Return half the round trip in µs: the median and the 99th percentile."""
        pod1, pod2 = (node.pod for node in self._nodes)
        tool = [*self._prefix, "sockperf"]
        server = pod2.popen([*tool, "server", "--tcp", "-i", POD2], stdout=subprocess.DEVNULL)
        wait_until(lambda: pod2.run(["ss", "-Hltn", "sport = :11111"]).stdout, timeout_s=10, what="sockperf listens")
        said = pod1.run([*tool, "ping-pong", "--tcp", "-i", POD2, "-t", "1", "--msg-size", "64"]).stdout
        server.kill()
        server.wait()
        found = dict(re.findall(r"percentile (50|99)\.000\s*=\s*([\d.]+)", said))
        return float(found["50"]), float(found["99"])


def main(arguments: Sequence[str]) -> None:
    """Measure and print a table."""
    one_core = "--one-core" in arguments
    rounds = next((int(argument) for argument in arguments if argument.isdigit()), 5)
    measured: dict[str, list[tuple[float, float]]] = {"vxlan": [], "native": [], "relay": []}
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        paths = Paths(directory, undo, ["taskset", "-c", "1"] if one_core else [])
        for _ in range(rounds):
            for path, rows in measured.items():
                paths.take(path)
                rows.append(paths.ping_pong())
    base = statistics.median(median for median, _ in measured["vxlan"])
    print(f"path     p50 µs    ratio   p99 µs   p50 of each round; load {Path('/proc/loadavg').read_text().split()[0]}")
    for path, rows in measured.items():
        p50, p99 = (statistics.median(column) for column in zip(*rows, strict=True))
        each = " ".join(f"{median:.1f}" for median, _ in rows)
        print(f"{path:8} {p50:6.1f}  {p50 / base:7.2f}  {p99:7.1f}   {each}")


if __name__ == "__main__":
    main(sys.argv[1:])
