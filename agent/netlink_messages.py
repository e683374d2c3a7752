"""What pyroute2 decoded, as our values. Pure; knows pyroute2's messages by their shape only."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Protocol

from agent.netlink_values import LINK_FLAGS, ONLINK, ROUTE_KINDS, ROUTE_PROTOCOLS, ROUTE_SCOPES, Link, Route


class Message(Protocol):
    """A decoded rtnetlink message: header fields by key, attributes by name."""

    def __getitem__(self, field: str) -> Any: ...  # noqa: ANN401 - the field decides

    def get_attr(self, name: str) -> Any: ...  # noqa: ANN401 - the attribute decides


def read_link(message: Message) -> Link:
    """One RTM_NEWLINK message."""
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        flags=frozenset(name for name, bit in LINK_FLAGS.items() if message["flags"] & bit),
        master=message.get_attr("IFLA_MASTER") or 0,
        tx_queue_length=message.get_attr("IFLA_TXQLEN") or 0,
    )


def read_address(message: Message) -> IPv4Interface:
    """One RTM_NEWADDR message."""
    # IFA_ADDRESS is the other end's address on a point-to-point link.
    own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return IPv4Interface(f"{own}/{message['prefixlen']}")


def read_route(message: Message, device_names: dict[int, str]) -> Route:
    """One RTM_NEWROUTE message; `device_names` by interface index."""
    gateway, source = message.get_attr("RTA_GATEWAY"), message.get_attr("RTA_PREFSRC")
    index = message.get_attr("RTA_OIF")
    return Route(
        destination=IPv4Network(f"{message.get_attr('RTA_DST') or '0.0.0.0'}/{message['dst_len']}"),
        device=None if index is None else device_names.get(index, f"if{index}"),
        gateway=IPv4Address(gateway) if gateway else None,
        scope=_name(ROUTE_SCOPES, message["scope"]),
        metric=message.get_attr("RTA_PRIORITY") or 0,
        kind=_name(ROUTE_KINDS, message["type"]),
        protocol=_name(ROUTE_PROTOCOLS, message["proto"]),
        source=IPv4Address(source) if source else None,
        onlink=bool(message["flags"] & ONLINK),
    )


def _name(names: dict[str, int], number: int) -> str:
    return next((name for name, value in names.items() if value == number), str(number))
