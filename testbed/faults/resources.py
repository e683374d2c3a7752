"""Counts a lab's resources that may leak: descriptors, threads, memory, leases, namespaces, links, rules, zombies.

Those of existing pods do not count: pods may come and go between two counts, and what they leave behind has no owner.
"""

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from testbed.errors import EtcdFailed
from testbed.faults.machines import TABLE_PREFIX, run
from testbed.lab.etcd import EtcdCluster
from testbed.lab.node import LabNode
from testbed.lab.nodes import Nodes
from testbed.lab.pods import Pods
from testbed.pods.pod import NETNS_DIRECTORY, Pod

RULE = re.compile(r"\t\t(?!\t|elements )")
"""In nft's listing: a line of a chain, or the definition of a set; a set's elements come and go with pods."""


def count_resources(nodes: Nodes, pods: Pods, etcd: EtcdCluster) -> dict[str, int]:
    """Count by name; names of a node's resources start with its name. Whatever is not running is omitted."""
    names = {path.name for path in NETNS_DIRECTORY.iterdir()}
    counts = {"network namespaces": len(names - {pod.key.file_name for pod in pods}), "zombies": _zombies()}
    # In a cluster of others, their leases come and go.
    if etcd.is_the_labs:
        with contextlib.suppress(EtcdFailed):
            # The first line has the number of the following ones.
            counts["etcd leases"] = len(etcd.etcdctl(["lease", "list"]).split()) - len(b"found 0 leases".split())
    for node in nodes.values():
        own = pods.on(node.name)
        counts |= {f"{node.name} {what}": count for what, count in _of_node(node, own).items()}
    return counts


def _of_node(node: LabNode, pods: Collection[Pod]) -> dict[str, int]:
    tables = [line for line in run(node.pid, ["nft", "list", "tables"]).splitlines() if TABLE_PREFIX not in line]
    rules = [line for line in run(node.pid, ["nft", "list", "ruleset"]).splitlines() if RULE.match(line)]
    counts = {
        "links": len({link.name for link in node.kernel.links()} - {pod.host_end for pod in pods}),
        "routes": len(node.kernel.routes()),
        "nftables tables": len(tables),
        "nftables rules": len(rules),
    }
    pid = node.agent.pid
    if pid is not None:
        # It may end meanwhile.
        with contextlib.suppress(OSError, KeyError):
            status = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
                if ":" in line
            )
            counts["agent descriptors"] = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            counts["agent threads"] = int(status["Threads"])
            counts["agent RSS kB"] = int(status["VmRSS"].split()[0])
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            counts["agent CPU ticks"] = int(fields[11]) + int(fields[12])
    return counts


def _zombies() -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                count += (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
    return count
