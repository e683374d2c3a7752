"""Costs of --datapath kernel by the number of peers, as JSON: `ip netns exec NS python -m tests.netns.fou_scale N`."""

import json
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

from agent.backends.base import Underlay
from agent.backends.fou import FouPlan, is_peer_device
from agent.backends.kernel_backend import KernelBackend
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.config import parse_network_config

OURS = IPv4Address("192.168.8.227")


def lease(number: int) -> Lease:
    subnet = IPv4Network((int(IPv4Address("10.0.0.0")) + number * 256, 24))
    return Lease(Subnet(subnet), LeaseAttrs(IPv4Address("172.16.0.0") + number), number + 1, number + 1)


def seconds(act: Callable[[], object]) -> float:
    since = time.perf_counter()
    act()
    return round(time.perf_counter() - since, 4)


def main(count: int) -> None:
    config = parse_network_config(b'{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"udp"}}')
    with Kernel(SilentJournal()) as kernel:
        underlay = Underlay("eth0", OURS, 1500, OURS)
        backend = KernelBackend(FouPlan(config.network, 8285, underlay, kernel), config, underlay, kernel)
        backend.lease_attrs()
        backend.start(lease(20_000))
        peers = [lease(number) for number in range(1, count + 2)]
        costs: dict[str, float] = {"peers": count, "made_s": seconds(lambda: backend.set_peers(peers[:count]))}
        costs["devices"] = sum(map(is_peer_device, kernel.links()))
        costs["again_s"] = seconds(backend.converge)
        costs["one_more_s"] = seconds(lambda: backend.set_peers(peers))
        backend.set_peers(peers[:count])
        gone = frozenset(kernel.links())
        stopped = seconds(lambda: kernel.delete_link(next(link.name for link in gone if is_peer_device(link)), "gone"))
        costs["removed_s"] = stopped
        costs["one_less_s"] = seconds(lambda: backend.set_peers(peers[1:count]))
        costs["all_removed_s"] = seconds(lambda: backend.set_peers([]))
    print(json.dumps(costs))


if __name__ == "__main__":
    main(int(sys.argv[1]))
