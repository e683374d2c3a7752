"""Forget flows that the connection tracker of the caller's network namespace remembers.

The first datagram of a UDP flow decides the translation of all the others until a pause. After a change of rules, older
flows must be forgotten, so that their next datagram counts as a first one again. pyroute2 needs 0.2 ms to decode an
entry and 0.3 ms to delete it, and there may be thousands. Here an entry's two tuples stay bytes, and deletions are sent
in batches: 0.07 and 0.1 ms. The kernel's scan of its whole table takes 10 ms.
"""

import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pyroute2.netlink import NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_CTNETLINK, nfgen_msg
from pyroute2.netlink.nfnetlink.nfctsocket import (
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_NEW,
    NFCTAttrTuple,
    NFCTSocket,
)

from agent.kernel.values import Family, Flow

COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
FAMILIES: Mapping[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
# Nested attributes of 4 bytes and a value each: addresses, then protocol and ports (nf_conntrack_netlink.c).
TUPLES = {4: struct.Struct(">4x 4x4s 4x4s 4x 8x 4xH2x 4xH2x"), 6: struct.Struct(">4x 4x16s 4x16s 4x 8x 4xH2x 4xH2x")}
FEW_PORTS = 4
"""Up to this many are queried one by one, at the cost of a scan of the kernel's table each; more are read as a whole.
"""
AT_ONCE = 256
"""Entries per message."""


class _Entry(nfgen_msg):  # type: ignore[misc]  # pyroute2 ships no types
    """One entry, with the parts used here."""

    prefix = "CTA_"
    nla_map = ((1, "CTA_TUPLE_ORIG", "cdata"), (2, "CTA_TUPLE_REPLY", "cdata"), (12, "CTA_ID", "be32"))


def forget_flows(
    version: Family, is_stale: Callable[[Flow], bool], ports: Collection[int] = (), protocol: int = socket.IPPROTO_UDP
) -> list[Flow]:
    """Forget the UDP flows (or TCP connections, by `protocol`) that `is_stale` chooses; return them. Raises OSError.

    With `ports`, only flows sent to one of these are considered.
    """
    if _is_empty():
        return []
    with NFCTSocket(FAMILIES[version]) as tracker:
        tracker.register_policy({NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW: _Entry})
        try:
            entries = [(_read(version, entry), entry) for entry in _list(version, tracker, ports, protocol)]
            stale = [(flow, entry) for flow, entry in entries if is_stale(flow)]
            _forget(version, tracker, [entry for _, entry in stale])
        except KernelRefusal as refusal:
            raise OSError(refusal.code, f"connection tracker: {refusal.args[-1]}") from refusal
    return [flow for flow, _ in stale]


def words(flows: Iterable[Flow], protocol: str = "udp") -> list[list[str]]:
    """Return the commands that forget these flows, for the journal."""
    found = sorted({(flow.destination, flow.destination_port, flow.reply_source) for flow in flows})
    return [
        [
            "conntrack",
            "-D",
            *(["-f", "ipv6"] if destination.version == 6 else []),
            "-p",
            protocol,
            "--orig-dst",
            str(destination),
            "--orig-port-dst",
            str(port),
            "--reply-src",
            str(reply_source),
        ]
        for destination, port, reply_source in found
    ]


def _is_empty() -> bool:
    """Report whether the tracker is empty, without a scan of its table."""
    try:
        return int(COUNT.read_text()) == 0
    except FileNotFoundError:
        # Connection tracking is not compiled in or not loaded.
        return True


def _list(version: Family, tracker: Any, ports: Collection[int], protocol: int) -> Iterator[_Entry]:  # noqa: ANN401 - as above
    wanted: Iterable[int | None] = sorted(ports) if 0 < len(ports) <= FEW_PORTS else (None,)
    for port in wanted:
        chosen = NFCTAttrTuple(family=FAMILIES[version], proto=protocol, dport=port)
        yield from tracker.dump(tuple_orig=chosen)


def _read(version: Family, entry: _Entry) -> Flow:
    original, reply = (TUPLES[version].unpack_from(entry.get_attr(f"CTA_TUPLE_{way}")) for way in ("ORIG", "REPLY"))
    return Flow(
        ip_address(original[0]),
        original[2],
        ip_address(original[1]),
        original[3],
        ip_address(reply[0]),
        reply[2],
        ip_address(reply[1]),
    )


def _forget(version: Family, tracker: Any, entries: Collection[_Entry]) -> None:  # noqa: ANN401 - as above
    messages = [_forgetting(version, entry) for entry in entries]
    for start in range(0, len(messages), AT_ONCE):
        # Without acknowledgements. The kernel refuses an entry that is gone or was replaced, which is success.
        tracker.sendto(b"".join(messages[start : start + AT_ONCE]), (0, 0))


def _forgetting(version: Family, entry: _Entry) -> bytes:
    message = _Entry()
    message["nfgen_family"] = FAMILIES[version]
    message["header"]["type"] = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    message["header"]["flags"] = NLM_F_REQUEST
    # By its id too: a flow that began again meanwhile is right.
    message["attrs"] = [[name, entry.get_attr(name)] for name in ("CTA_TUPLE_ORIG", "CTA_ID")]
    message.encode()
    return bytes(message.data)
