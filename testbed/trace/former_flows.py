"""Makes a traced packet the first of its connection, even if connection trackers remember one from the same port."""

import contextlib
import socket
from functools import partial

from agent.kernel.conntrack import forget_flows, words
from agent.kernel.values import Flow
from testbed.capture.map import Map
from testbed.lab.nodes import Nodes
from testbed.processes.namespaces import in_network_of
from testbed.trace.traced_packet import TracedPacket, WantedPacket

NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
WHY = "a trace from this port is a new connection, whatever used it before"


def forget_former(nodes: Nodes, known: Map, place: str, packet: TracedPacket) -> None:
    """Make nodes forget earlier flows with the same addresses and ports.

    Those are over: the traced packet holds the port. Ports chosen by the kernel, and ICMP identifiers, have no recent
    flows.
    """
    wanted = packet.wanted
    if wanted.source_port is None or wanted.destination_port is None or wanted.protocol == "icmp":
        return
    number = NUMBERS[wanted.protocol]
    is_former = partial(_is_former, known, place, wanted)
    for node in nodes.values():
        for version in (4, 6):
            if version != wanted.destination.version:
                continue
            with contextlib.suppress(OSError):
                ports = (wanted.destination_port,)
                forgotten = in_network_of(node.pid, partial(forget_flows, version, is_former, ports, number))
                for command in words(forgotten, wanted.protocol):
                    node.kernel.journal.record(command, WHY)


def _is_former(known: Map, place: str, wanted: WantedPacket, flow: Flow) -> bool:
    ports = (flow.source_port, flow.destination_port)
    same = ports == (wanted.source_port, wanted.destination_port) and flow.destination == wanted.destination
    return same and known.addresses.get(flow.source) == place
