"""Facts for pictures, as a running lab would tell them: made from the plan of a cluster, with nothing running."""

from typing import Any, TypeAlias

from testbed.cluster.generated import choose, generate
from testbed.cluster.overlay import overlay_of
from testbed.cluster.spec import Cluster, find_cluster
from testbed.cluster.underlay_plan import plan_underlay
from testbed.pods.pod_network import host_end

Facts: TypeAlias = Any
"""A GraphAnswer, which tests change as they like."""


def facts_of_topology(topology: str, pods_per_node: int = 2) -> Facts:
    """Return the facts of `up --topo TOPOLOGY --pods-per-node N`."""
    return facts_of(generate(choose(topology, None), pods_per_node))


def facts_of_cluster(name: str) -> Facts:
    """Return the facts of a shipped cluster."""
    return facts_of(find_cluster(name))


def facts_of(cluster: Cluster) -> Facts:
    """Return what the lab's verb `graph` answers when all is well."""

    plan = plan_underlay(cluster.wiring, cluster.addresses, cluster.underlay.mtu)
    overlay = overlay_of(cluster.config)
    subnets = {name: f"10.0.{number}.0/24" for number, name in enumerate(cluster.nodes, 1)}
    ports: dict[str, int] = {}
    machines: dict[str, Facts] = {
        name: {"name": name, "kind": _kind(name, cluster), "healthy": True, "interfaces": []} for name in plan.machines
    }
    switches: dict[str, Facts] = {name: {"name": name, "up": True, "interfaces": []} for name in plan.switches}
    cables = []
    for number, cable in enumerate(plan.cables):
        ends = []
        for name in cable.ends:
            index = ports.get(name, 0 if name in machines else 1)
            ports[name] = index + 1
            link = interface(f"{name}-eth{index}")
            if name in machines:
                link["address"] = str(plan.machines[name].ports[index].address)
            (machines.get(name) or switches[name])["interfaces"].append(link)
            ends.append({"machine": name, "interface": link["name"]})
        cables.append({"ends": ends, "spare": number in plan.spare, **_shaping(cable.shaping)})
    pods = [_pod(pod.name, str(pod.spec.node_name), number) for number, pod in enumerate(cluster.pods, 2)]
    for pod in pods:
        machines[pod["node"]]["interfaces"].append(interface(pod["host_end"], master="docker0"))
    nodes = [_node(name, str(cluster.addresses.nodes[name]), subnets[name], overlay.device) for name in cluster.nodes]
    return {
        "lab": cluster.name,
        "state": "ready",
        "at": "2026-01-01T00:00:00Z",
        "network": cluster.network["Network"],
        "port": 8285,
        "machines": list(machines.values()),
        "switches": list(switches.values()),
        "cables": cables,
        "nodes": [{**node, "backend": overlay.backend, "peers": _peers(len(nodes))} for node in nodes],
        "pods": pods,
        "services": [],
    }


def interface(name: str, master: str | None = None) -> Facts:
    """Return one that is up and through which nothing went."""
    zero = dict.fromkeys(("rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets", "tx_dropped"), 0)
    up = {"kind": "veth", "address": None, "up": True, "carrier": True, "mtu": 1500}
    return {"name": name, "master": master, **up, **zero}


def _kind(name: str, cluster: Cluster) -> str:
    if name in cluster.nodes:
        return "node"
    return "gateway" if name == "gw" else "etcd" if name in cluster.addresses.etcd else "router"


def _shaping(shaping: Any) -> Facts:  # noqa: ANN401 - of a cable
    return {"bandwidth_mbit": shaping.bandwidth, "delay": shaping.delay, "loss_percent": shaping.loss}


def _peers(nodes: int) -> Facts:
    return {"known": nodes - 1, "expected": nodes - 1}


def _node(name: str, address: str, subnet: str, device: str | None) -> Facts:
    base = subnet.removesuffix("0/24")
    return {
        "name": name,
        "address": address,
        "subnet": subnet,
        "device": device,
        "datapath": "native",
        "agent": {"state": "ready", "pid": 1, "restarts": 0},
        "bridge_name": "docker0",
        "bridge": {"name": "docker0", "kind": "bridge", "address": f"{base}1/24", "mtu": 1472, "up": True},
        "overlay": device and {"name": device, "kind": "tun", "address": f"{base}0/32", "mtu": 1472, "up": True},
        "why_not_ready": [],
        "forwarding": [],
        "drops": {},
        "traffic": {},
    }


def _pod(name: str, node: str, number: int) -> Facts:
    address = f"10.0.{number // 250}.{number % 250}"
    state = {"address": address, "state": "Running", "ready": True, "restarts": 0}
    return {"name": name, "node": node, "host_end": host_end(name), **state}
