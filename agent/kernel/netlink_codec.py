"""rtnetlink messages as bytes: links, addresses, routes and neighbours, as far as we need them. Pure.

pyroute2 knows all of rtnetlink and takes a millisecond for a message; a node needs a hundred of them to start. What is
here is the part that every node needs. Constants: linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h.
"""

import socket
import struct
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

REQUEST, MULTI, ACK, DUMP_INTERRUPTED, REPLACE, EXCLUSIVE, CREATE, DUMP = (
    0x1,
    0x2,
    0x4,
    0x10,
    0x100,
    0x200,
    0x400,
    0x300,
)
ERROR, DONE = 2, 3
NEW_LINK, DELETE_LINK, GET_LINK, SET_LINK = 16, 17, 18, 19
NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NESTED = 0x8000
ATTRIBUTE_NUMBER = 0x3FFF
BRIDGE_FAMILY = 7  # AF_BRIDGE
UP = 1  # IFF_UP
HAIRPIN = 4  # IFLA_BRPORT_MODE
NUD_PERMANENT = 0x80

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg
ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
NUMBER = struct.Struct("=I")
CODE = struct.Struct("=i")  # the beginning of struct nlmsgerr
COUNTS = struct.Struct("=8Q")  # the beginning of struct rtnl_link_stats64
COUNT_NAMES = (
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
)
INFO_KIND, INFO_DATA, VETH_PEER = 1, 2, 1


def _number(value: bytes) -> int:
    return int(NUMBER.unpack_from(value)[0])


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode()


def _mac(value: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in value)


def _address(value: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def _counts(value: bytes) -> Mapping[str, int]:
    return dict(zip(COUNT_NAMES, COUNTS.unpack_from(value), strict=True))


@dataclass(frozen=True)
class Shape:
    """One kind of message: its fixed part, and the attributes that we read."""

    fixed: struct.Struct
    fields: tuple[str, ...]
    attributes: Mapping[str, tuple[int, Callable[[bytes], Any]]]

    @cached_property
    def wanted(self) -> frozenset[int]:
        """The numbers of those attributes."""
        return frozenset(number for number, _ in self.attributes.values())


def _link_info(value: bytes) -> "Message":
    return Message(LINK_INFO, {}, read_attributes(value, 0, LINK_INFO.wanted))


LINK_INFO = Shape(struct.Struct(""), (), {"IFLA_INFO_KIND": (INFO_KIND, _text)})
SHAPES: Mapping[int, Shape] = {
    NEW_LINK: Shape(
        LINK,
        ("family", "ifi_type", "index", "flags", "change"),
        {
            "IFLA_ADDRESS": (1, _mac),
            "IFLA_IFNAME": (3, _text),
            "IFLA_MTU": (4, _number),
            "IFLA_MASTER": (10, _number),
            "IFLA_TXQLEN": (13, _number),
            "IFLA_LINKINFO": (18, _link_info),
            "IFLA_STATS64": (23, _counts),
        },
    ),
    NEW_ADDRESS: Shape(
        ADDRESS,
        ("family", "prefixlen", "flags", "scope", "index"),
        {"IFA_ADDRESS": (1, _address), "IFA_LOCAL": (2, _address)},
    ),
    NEW_ROUTE: Shape(
        ROUTE,
        ("family", "dst_len", "src_len", "tos", "table", "proto", "scope", "type", "flags"),
        {
            "RTA_DST": (1, _address),
            "RTA_OIF": (4, _number),
            "RTA_GATEWAY": (5, _address),
            "RTA_PRIORITY": (6, _number),
            "RTA_PREFSRC": (7, _address),
            "RTA_TABLE": (15, _number),
        },
    ),
    NEW_NEIGHBOUR: Shape(
        NEIGHBOUR,
        ("family", "ifindex", "state", "flags", "ndm_type"),
        {"NDA_DST": (1, _address), "NDA_LLADDR": (2, _mac)},
    ),
}


class Message:
    """A decoded message: header fields by key, attributes by name, as pyroute2's are."""

    __slots__ = ("_attributes", "_fields", "_shape")

    def __init__(self, shape: Shape, fields: Mapping[str, int], attributes: Mapping[int, bytes]) -> None:
        self._shape, self._fields, self._attributes = shape, fields, attributes

    def __getitem__(self, field: str) -> int:
        return self._fields[field]

    def get_attr(self, name: str) -> Any:  # noqa: ANN401 - the attribute decides
        """The attribute's value; None where the message has none."""
        number, decode = self._shape.attributes[name]
        value = self._attributes.get(number)
        return None if value is None else decode(value)


def read_message(kind: int, body: bytes) -> Message:
    """One message of a kind in SHAPES, without its header."""
    shape = SHAPES[kind]
    fields = dict(zip(shape.fields, shape.fixed.unpack_from(body), strict=True))
    return Message(shape, fields, read_attributes(body, shape.fixed.size, shape.wanted))


def read_attributes(data: bytes, start: int, wanted: Container[int]) -> dict[int, bytes]:
    """The values of those attributes from `start` on that are wanted; a link has sixty of them."""
    found = {}
    unpack, last = ATTRIBUTE.unpack_from, len(data) - ATTRIBUTE.size
    while start <= last:
        length, kind = unpack(data, start)
        if (number := kind & ATTRIBUTE_NUMBER) in wanted:
            found[number] = data[start + 4 : start + length]
        # Attributes begin at multiples of four bytes (RTA_ALIGNTO).
        start += (length + 3) & ~3 or 4
    return found


def parts(answers: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(kind, flags, sequence number, body) of each message of what was received."""
    start = 0
    while start + HEADER.size <= len(answers):
        length, kind, flags, sequence, _ = HEADER.unpack_from(answers, start)
        yield kind, flags, sequence, answers[start + HEADER.size : start + length]
        start += _aligned(max(length, HEADER.size))


def request(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message to the kernel."""
    return HEADER.pack(HEADER.size + len(body), kind, REQUEST | flags, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute with what fills it up to a multiple of four bytes."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def packed_mac(mac: str) -> bytes:
    """As the kernel wants it."""
    return bytes.fromhex(mac.replace(":", ""))


def packed_address(address: str) -> bytes:
    """As the kernel wants it."""
    return socket.inet_pton(family_of(address), address)


def family_of(address: str) -> int:
    """AF_INET or AF_INET6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def link_body(index: int = 0, *, family: int = 0, flags: int = 0, attributes: Sequence[bytes] = ()) -> bytes:
    """A link message; `flags` are those to be set."""
    return LINK.pack(family, 0, index, flags, flags) + b"".join(attributes)


def link_settings(given: Mapping[str, Any]) -> list[bytes]:
    """Attributes of a link by the names that pyroute2 has for them. Raises KeyError for one that we do not know."""
    encoders: Mapping[str, tuple[int, Callable[[Any], bytes]]] = {
        "address": (1, packed_mac),
        "ifname": (3, lambda name: name.encode() + b"\0"),
        "mtu": (4, NUMBER.pack),
        "master": (10, NUMBER.pack),
        "txqlen": (13, NUMBER.pack),
        "net_ns_pid": (19, NUMBER.pack),
    }
    return [attribute(encoders[name][0], encoders[name][1](value)) for name, value in given.items()]


def link_kind(kind: str, peer: Mapping[str, Any] | None) -> bytes:
    """What kind of link is to be made; a veth's other end by its settings."""
    info = attribute(INFO_KIND, kind.encode() + b"\0")
    if peer is not None:
        other = attribute(VETH_PEER | NESTED, link_body(attributes=link_settings(peer)))
        info += attribute(INFO_DATA | NESTED, other)
    return attribute(18 | NESTED, info)


def hairpin(on: bool) -> bytes:
    """A bridge port's setting."""
    return attribute(12 | NESTED, attribute(HAIRPIN, bytes([on])))


def address_body(given: Mapping[str, Any]) -> bytes:
    """An address with `index`, `address`, `prefixlen`, and possibly `broadcast` and `flags`."""
    packed, flags = packed_address(given["address"]), given.get("flags", 0)
    body = ADDRESS.pack(family_of(given["address"]), given["prefixlen"], flags & 0xFF, 0, given["index"])
    body += attribute(1, packed)
    if len(packed) == 4:
        body += attribute(2, packed)
    if "broadcast" in given:
        body += attribute(4, packed_address(given["broadcast"]))
    return body + (attribute(8, NUMBER.pack(flags)) if flags else b"")


def route_body(given: Mapping[str, Any]) -> bytes:
    """A route with `dst` (with its length), `family`, and possibly the parts that pyroute2 has names for."""
    network, _, length = given["dst"].partition("/")
    family = given.get("family", family_of(network))
    bits = int(length or (32 if family == socket.AF_INET else 128))
    fixed = (given.get("table", 0), given.get("proto", 0), given.get("scope", 0), given.get("type", 0))
    body = ROUTE.pack(family, bits, 0, 0, *fixed, given.get("flags", 0))
    body += attribute(1, packed_address(network)) if bits else b""
    for name, number in (("oif", 4), ("priority", 6)):
        body += attribute(number, NUMBER.pack(given[name])) if name in given else b""
    for name, number in (("gateway", 5), ("prefsrc", 7)):
        body += attribute(number, packed_address(given[name])) if name in given else b""
    return body


def neighbour_body(index: int, address: str, mac: str | None = None, state: int = 0) -> bytes:
    """A neighbour entry of one device."""
    body = NEIGHBOUR.pack(family_of(address), index, state, 0, 0) + attribute(1, packed_address(address))
    return body + (attribute(2, packed_mac(mac)) if mac else b"")


def forwarding_body(index: int, mac: str, destination: str, state: int, flags: int) -> bytes:
    """An entry of a vxlan device's forwarding database."""
    body = NEIGHBOUR.pack(BRIDGE_FAMILY, index, state, flags, 0)
    return body + attribute(2, packed_mac(mac)) + attribute(1, packed_address(destination))


def _aligned(length: int) -> int:
    return (length + 3) & ~3
