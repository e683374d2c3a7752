"""Frames that try to pass a default deny: written byte by byte, sent on a pod's own link, looked for at another's."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

from tests.e2e.pod_sockets import made_in

MARKER = b"forged-by-a-test"
IPV4, VLAN, SERVICE_VLAN, ODD = 0x0800, 0x8100, 0x88A8, 0x88B5
EVERYONE = b"\xff" * 6
LISTEN_S = 0.4
GOOD = "of a known connection"
"""The kernel lets it pass once its like has been answered; until then it is as forged as the others."""


def mac_of(address: str) -> bytes:
    """Return a pod's MAC address, which follows from its IPv4 address."""
    return b"\x0a\x58" + IPv4Address(address).packed


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    """Return a packet; `fragment`: flags and offset as in the header."""
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | words,
        0,
        words * 4 + len(payload),
        0x4242,
        fragment,
        64,
        protocol,
        0,
        IPv4Address(source).packed,
        IPv4Address(target).packed,
    )
    summed = checksum(head + options)
    return head[:10] + struct.pack("!H", summed) + head[12:] + options + payload


def udp(port: int, payload: bytes = MARKER, source_port: int = 4242) -> bytes:
    """Build a UDP datagram without a checksum, which IPv4 allows."""
    return struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload


def tcp(port: int, flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 4242, port, 1, 1, 0x50, flags, 1024, 0, 0) + MARKER


def forgeries(source: str, target: str, friend: str, gateway_mac: bytes, beside: bool) -> dict[str, bytes]:
    """Frames by what they try, from pod `source` to `target`, which isolates itself; `friend` is another pod's address.

    `beside`: the target is on the same bridge, so that its own MAC address leads to it.
    """
    far = mac_of(target) if beside else gateway_mac
    own = mac_of(source)
    network = source.rpartition(".")[0]

    def frame(packet: bytes, kind: int = IPV4, to: bytes = far, sender: bytes = own, tags: bytes = b"") -> bytes:
        return to + sender + tags + struct.pack("!H", kind) + packet

    plain = ipv4(source, target, 17, udp(80))
    whole = udp(80, MARKER * 4)
    return {
        "plain UDP": frame(plain),
        GOOD: frame(ipv4(source, target, 17, udp(80, source_port=4243))),
        "another pod's address": frame(ipv4(friend, target, 17, udp(80))),
        "another pod's address and MAC": frame(ipv4(friend, target, 17, udp(80)), sender=mac_of(friend)),
        "the target's own address": frame(ipv4(target, target, 17, udp(80))),
        "the gateway's address": frame(ipv4(f"{network}.1", target, 17, udp(80))),
        "from port 53": frame(ipv4(source, target, 17, udp(80, source_port=53))),
        "to port 0": frame(ipv4(source, target, 17, udp(0))),
        "TCP SYN": frame(ipv4(source, target, 6, tcp(80, 0x02))),
        "TCP ACK of no connection": frame(ipv4(source, target, 6, tcp(80, 0x10))),
        "TCP SYN ACK": frame(ipv4(source, target, 6, tcp(80, 0x12))),
        "TCP RST": frame(ipv4(source, target, 6, tcp(80, 0x04))),
        "TCP FIN PSH URG": frame(ipv4(source, target, 6, tcp(80, 0x29))),
        "ICMP echo request": frame(ipv4(source, target, 1, b"\x08\x00\x00\x00\x42\x42\x00\x01" + MARKER)),
        "ICMP echo reply": frame(ipv4(source, target, 1, b"\x00\x00\x00\x00\x42\x42\x00\x01" + MARKER)),
        "ICMP error about nothing": frame(ipv4(source, target, 1, b"\x03\x01" + bytes(6) + plain)),
        "IP in IP": frame(ipv4(source, target, 4, plain)),
        "GRE": frame(ipv4(source, target, 47, b"\x00\x00\x08\x00" + plain)),
        "ESP": frame(ipv4(source, target, 50, bytes(8) + MARKER)),
        "SCTP INIT": frame(ipv4(source, target, 132, struct.pack("!HHII", 4242, 80, 0, 0) + MARKER)),
        "protocol 253": frame(ipv4(source, target, 253, MARKER)),
        "first fragment": frame(ipv4(source, target, 17, whole[:40], fragment=0x2000)),
        "later fragment": frame(ipv4(source, target, 17, whole[40:], fragment=5)),
        "a fragment without its first": frame(ipv4(source, target, 17, MARKER, fragment=100)),
        "source route option": frame(
            ipv4(source, target, 17, udp(80), options=b"\x83\x07\x04" + IPv4Address(target).packed + b"\x00")
        ),
        "broadcast address of the subnet": frame(ipv4(source, f"{network}.255", 17, udp(80)), to=EVERYONE),
        "broadcast address, the target's MAC": frame(ipv4(source, f"{network}.255", 17, udp(80))),
        "255.255.255.255": frame(ipv4(source, "255.255.255.255", 17, udp(80)), to=EVERYONE),
        "multicast": frame(ipv4(source, "224.0.0.1", 17, udp(80)), to=b"\x01\x00\x5e\x00\x00\x01"),
        "the target's address to everyone's MAC": frame(plain, to=EVERYONE),
        "VLAN 0": frame(plain, tags=struct.pack("!HH", VLAN, 0)),
        "VLAN 0 of a service": frame(plain, tags=struct.pack("!HH", SERVICE_VLAN, 0)),
        "VLAN 0 twice": frame(plain, tags=struct.pack("!HHHH", VLAN, 0, VLAN, 0)),
        "VLAN 1": frame(plain, tags=struct.pack("!HH", VLAN, 1)),
        "a network protocol of its own": frame(MARKER * 4, kind=ODD),
    }


@contextmanager
def inside(pid: int, pod: str) -> Iterator[socket.socket]:
    """Yield a socket for whole frames on a pod's link; `pid` is the lab's first process."""

    def opened() -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # ETH_P_ALL
        one.bind(("eth0", 3))
        return one

    with made_in(pid, pod, opened) as one:
        yield one


def heard(listener: socket.socket, for_s: float = LISTEN_S) -> list[bytes]:
    """Return the forged frames that come in until none has for so long."""
    found = []
    deadline = time.monotonic() + for_s
    while (left_s := deadline - time.monotonic()) > 0:
        listener.settimeout(left_s)
        try:
            data, (_, _, kind, *_) = listener.recvfrom(65535)
        except TimeoutError:
            break
        if kind != socket.PACKET_OUTGOING and MARKER in data:
            found.append(data)
    return found
