"""One udp backend in the namespace that this process was started in, driven by lines of JSON on standard input.

    python -m tests.netns.udp_node NETWORK SUBNET INTERFACE ADDRESS JOURNAL [DATAPATH [LACKS]]

Commands and answers are one line each: `["peers", {subnet: public_ip, …}]`, `["converge"]`, `["fence"]`, `["table"]`,
`["counters"]`, `["stop"]`. The first line printed is `{"device", "overlay_mtu"}`, or `{"error"}`.

LACKS are offloads, separated by commas, that this kernel refuses, as an older one would.
"""

import errno
import json
import logging
import socket
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from unittest.mock import patch

from agent.backends.base import Underlay
from agent.backends.udp import UdpBackend
from agent.datapath import offloads, tun
from agent.errors import AgentError
from agent.kernel.journal import FileJournal
from agent.kernel.kernel import Kernel
from agent.lease import Lease, LeaseAttrs, Subnet

PORT = 8285


def lease(subnet: str, public_ip: str) -> Lease:
    """Return a hand-made lease."""
    return Lease(Subnet(IPv4Network(subnet)), LeaseAttrs(IPv4Address(public_ip)), etcd_lease_id=1, mod_revision=1)


def answer(backend: UdpBackend, command: str, argument: Mapping[str, str]) -> object:
    """Do one command and return what to print."""
    if command == "peers":
        backend.set_peers([lease(subnet, ip) for subnet, ip in argument.items()])
    elif command == "table":
        return {str(entry.subnet): entry.via for entry in backend.forwarding_table()}
    elif command == "counters":
        counters = backend.counters()
        return {
            "tx": [counters.tx_packets, counters.tx_bytes],
            "rx": [counters.rx_packets, counters.rx_bytes],
            "drops": {reason: count for reason, count in counters.drops.items() if count},
        }
    else:
        {"converge": backend.converge, "fence": backend.fence, "stop": backend.stop}[command]()
    return {}


def refuse(lacks: set[str]) -> None:
    """Answer like a kernel without these offloads, where the system calls that ask for them are made."""
    option, offload, interface = offloads._option, offloads._offload, tun._set_interface
    options = {offloads.UDP_SEGMENT: "UDP_SEGMENT", offloads.UDP_GRO: "UDP_GRO"}
    flags = {offloads.TUN_F_USO4: "TUN_F_USO4", offloads.TUN_F_TSO4: "TUN_F_TSO4"}

    def refuse_option(udp: socket.socket, number: int, value: int) -> bool:
        return options[number] not in lacks and option(udp, number, value)

    def refuse_offload(descriptor: int, wanted: int) -> bool:
        return not any(wanted & flag and name in lacks for flag, name in flags.items()) and offload(descriptor, wanted)

    def refuse_flags(descriptor: int, name: str, more_flags: int) -> str:
        if more_flags & tun.IFF_VNET_HDR and "IFF_VNET_HDR" in lacks:
            raise OSError(errno.EINVAL, "Invalid argument")
        return interface(descriptor, name, more_flags)

    patch.object(offloads, "_option", refuse_option).start()
    patch.object(offloads, "_offload", refuse_offload).start()
    patch.object(tun, "_set_interface", refuse_flags).start()


def main(
    network: str, subnet: str, interface: str, address: str, journal: str, datapath: str = "auto", lacks: str = ""
) -> None:
    """Run until standard input ends."""
    logging.basicConfig(level=logging.INFO)
    if lacks:
        refuse(set(lacks.split(",")))
    with Kernel(FileJournal(Path(journal), subnet)) as kernel:
        link = kernel.link(interface)
        assert link is not None
        underlay = Underlay(interface, IPv4Address(address), link.mtu, IPv4Address(address))
        try:
            backend = UdpBackend(IPv4Network(network), PORT, underlay, kernel, datapath)
        except AgentError as error:
            print(json.dumps({"error": str(error)}), flush=True)
            return
        backend.start(lease(subnet, address))
        print(json.dumps({"device": backend.device, "overlay_mtu": backend.overlay_mtu}), flush=True)
        for line in sys.stdin:
            command, *argument = json.loads(line)
            print(json.dumps(answer(backend, command, *(argument or [{}]))), flush=True)
        backend.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
