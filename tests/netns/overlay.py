"""The example of the vectors for any backend: two nodes with agents in bare namespaces, a pod by hand on each."""

import json
from collections.abc import Mapping

import pytest

from tests.netns.agents import Agent, Underlay, ping, run, wait_until

POD1, POD2 = "10.0.46.2", "10.0.90.2"


def skip_without(kind: str) -> None:
    """Skip the test where the kernel has no such devices, with what it said."""
    tried = run("unshare", "--net", "ip", "link", "add", "probe", "type", kind, check=False)
    if "Unknown device type" in tried.stderr or "not supported" in tried.stderr:
        pytest.skip(f"this kernel has no {kind} device ({tried.stderr.strip()})")


def network(backend: Mapping[str, object], **more: object) -> str:
    """Return the network config of the vectors with another backend."""
    return json.dumps({"Network": "10.0.0.0/16", "SubnetLen": 24, "Backend": dict(backend), **more})


class TwoNodes:
    """node1 10.0.46.0/24, node2 10.0.90.0/24, a pod on each that reaches the other."""

    def __init__(self, underlay: Underlay, backend: Mapping[str, object], *flags: str) -> None:
        self.underlay = underlay
        underlay.start_etcd()
        underlay.write_config(network(backend))
        self.node1 = underlay.agent("node1", "192.168.8.227", *flags, pinned="10.0.46.1/24")
        self.node2 = underlay.agent("node2", "192.168.8.228", *flags, pinned="10.0.90.1/24")
        for node in self.nodes:
            node.wait_ready()
        self.pod1 = underlay.pod(self.node1, "a", f"{POD1}/24")
        self.pod2 = underlay.pod(self.node2, "b", f"{POD2}/24")
        self.wait_connected()

    @property
    def nodes(self) -> tuple[Agent, Agent]:
        return self.node1, self.node2

    def wait_connected(self, timeout_s: float = 30) -> None:
        """Wait until the pods reach each other, once each node's watch has seen the other's lease."""
        wait_until(self.connected, timeout_s, "the pods reach each other", lambda: (self.node1.log, self.node2.log))

    def connected(self) -> bool:
        """Return whether a ping goes both ways."""
        return ping(self.pod1, POD2).returncode == 0 and ping(self.pod2, POD1).returncode == 0


def on(node: Agent, command: str) -> str:
    """Return the standard output of a command in the node's namespace."""
    return run("ip", "netns", "exec", node.netns, *command.split()).stdout


def lines(text: str) -> set[str]:
    """Return the lines of what `ip` prints, without the blanks at their ends."""
    return {" ".join(line.split()) for line in text.splitlines() if line.strip()}


def vtep_mac(node: Agent, device: str = "flannel.1") -> str:
    """Return the MAC of the node's vxlan device."""
    mac: str = json.loads(on(node, f"ip -j link show {device}"))[0]["address"]
    return mac
