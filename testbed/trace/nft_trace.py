"""Finds the packet filter rule that drops a packet: the kernel reports it for packets marked with nftrace.

Our own tables mark them, at nftables' first hook; a second probe is sent; the tables are removed again. Each rule that
the packet matches is reported as a message (linux/netfilter/nf_tables.h, NFTA_TRACE_*).
"""

import contextlib
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testbed.capture.headers import ICMPV6, Encapsulation
from testbed.capture.network_header import IPV6_HEADER
from testbed.processes.namespaces import in_network_of
from testbed.processes.short_commands import output_of
from testbed.trace.recognise import Mark

TABLE_PREFIX = "testbed-trace-"
NETLINK_NETFILTER, SOL_NETLINK, ADD_MEMBERSHIP, TRACE_GROUP = 12, 270, 1, 9
TRACE_MESSAGE = (10 << 8) | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
TABLE_NAME, CHAIN_NAME, RULE_HANDLE, TYPE, VERDICT, POLICY = 1, 2, 3, 4, 5, 16
BY_POLICY, BY_RULE, DROP = 1, 3, 0
FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
WAIT_S = 0.5
NESTED = 0x3FFF


@dataclass(frozen=True, slots=True)
class Dropped:
    """The end of a packet."""

    family: str
    table: str
    chain: str
    handle: int | None
    """Of the rule; None: the chain's policy."""


def dropping_rule(pid: int, mark: Mark, overlay: Encapsulation, send: Callable[[], None]) -> str | None:
    """Send a probe and return the rule in the network namespace of process `pid` that drops it; None if none does.

    Raises OSError if nftables is unavailable.
    """
    listening = in_network_of(pid, _listen)
    try:
        nft(pid, ["-f", "-"], marking_table(mark, overlay))
        try:
            send()
            dropped = _wait_for_drop(listening)
        finally:
            with contextlib.suppress(OSError):
                table = _table_of(mark)
                nft(pid, ["delete", "table", "inet", table, ";", "delete", "table", "bridge", table])
    finally:
        listening.close()
    return None if dropped is None else _in_words(pid, dropped)


def marking_table(mark: Mark, overlay: Encapsulation) -> str:
    """Return an nft script that marks the probe, plain or encapsulated, wherever it arrives or is sent. Pure."""
    place = (4 if mark.protocol == "tcp" else 8) * 8
    protocol = "icmpv6" if mark.number == ICMPV6 else mark.protocol
    matches = [f"meta l4proto {protocol} @th,{place},32 {mark.cookie}"]
    if overlay.port:
        inside = (8 + overlay.header_bytes + (20 if mark.version == 4 else IPV6_HEADER)) * 8 + place
        matches.append(f"udp dport {overlay.port} @th,{inside},32 {mark.cookie}")
    rules = "".join(f"\t\t{match} meta nftrace set 1\n" for match in matches)
    chains = "".join(
        f"\tchain {hook} {{\n\t\ttype filter hook {hook} priority -390; policy accept;\n{rules}\t}}\n"
        for hook in ("prerouting", "output")
    )
    # A bridge has its own rules, which come first for a packet between its ports.
    ip = "ip" if mark.version == 4 else "ip6"
    bridged = "".join(f"\t\tether type {ip} {match} meta nftrace set 1\n" for match in matches)
    ports = f"\tchain ports {{\n\t\ttype filter hook prerouting priority -390; policy accept;\n{bridged}\t}}\n"
    table = _table_of(mark)
    return f"table inet {table} {{\n{chains}}}\ntable bridge {table} {{\n{ports}}}\n"


def _table_of(mark: Mark) -> str:
    """Return a name for this probe alone: several may be traced at a time."""
    return f"{TABLE_PREFIX}{mark.cookie:08x}"


def _listen() -> socket.socket:
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    listening.bind((0, 0))
    listening.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, TRACE_GROUP)
    return listening


def _wait_for_drop(listening: socket.socket) -> Dropped | None:
    deadline = time.monotonic() + WAIT_S
    while (left_s := deadline - time.monotonic()) > 0:
        listening.settimeout(left_s)
        try:
            data = listening.recv(65536)
        except OSError:
            return None
        for family, attributes in trace_messages(data):
            dropped = dropped_by(family, attributes)
            if dropped is not None:
                return dropped
    return None


def trace_messages(data: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Yield the table's family and the attributes of each trace message in one netlink datagram. Pure."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if kind == TRACE_MESSAGE:
            yield data[at + 16], _attributes(data[at + 20 : at + length])
        at += max(16, (length + 3) & ~3)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & NESTED] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def dropped_by(family: int, attributes: dict[int, bytes]) -> Dropped | None:
    """Return how the packet was dropped according to a trace message; None if it continued. Pure."""
    kind = int.from_bytes(attributes.get(TYPE, b""), "big")
    verdict = _attributes(attributes.get(VERDICT, b"")).get(1)
    by_rule = kind == BY_RULE and verdict is not None and int.from_bytes(verdict, "big") == DROP
    by_policy = kind == BY_POLICY and attributes.get(POLICY, b"\xff") == bytes(4)
    if not by_rule and not by_policy:
        return None
    handle = int.from_bytes(attributes.get(RULE_HANDLE, b""), "big") if by_rule else None
    return Dropped(FAMILIES.get(family, "inet"), _text(attributes, TABLE_NAME), _text(attributes, CHAIN_NAME), handle)


def _text(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _in_words(pid: int, dropped: Dropped) -> str:
    where = f"table {dropped.family} {dropped.table}, chain {dropped.chain}"
    if dropped.handle is None:
        return f"policy drop of {where}"
    listing = nft(pid, ["-a", "list", "chain", dropped.family, dropped.table, dropped.chain])
    found = re.search(rf"^\s*(.*\S)\s+# handle {dropped.handle}$", listing, re.MULTILINE)
    return f"{where}: {found[1] if found else f'rule {dropped.handle}'}"


def nft(pid: int, arguments: list[str], script: str = "") -> str:
    """Return the output of nft in the network namespace of process `pid`. Raises OSError with its message."""
    command = ["nft", *arguments]
    return output_of(["nsenter", "--target", str(pid), "--net", "--", *command], script, called=" ".join(command))
