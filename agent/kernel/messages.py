"""Decoded rtnetlink messages as our own values. Pure."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Protocol

from agent.kernel.values import (
    LINK_FLAGS,
    ONLINK,
    ROUTE_KINDS,
    ROUTE_PROTOCOLS,
    ROUTE_SCOPES,
    AssignedAddress,
    ForwardingDatabaseEntry,
    IPInterface,
    Link,
    Route,
    TunnelSettings,
    VxlanSettings,
)

IPV6 = 10  # AF_INET6
PERMANENT = 0x80  # NUD_PERMANENT, linux/neighbour.h
FOU = 1  # TUNNEL_ENCAP_FOU, linux/if_tunnel.h
# IFA_F_*, linux/if_addr.h; the first is one bit with two meanings.
SECONDARY = TEMPORARY = 0x01
DUPLICATE_FOUND, DEPRECATED, ENDLESS = 0x08, 0x20, 0x80
IPV6_DEFAULT_METRIC = 1024  # IP6_RT_PRIO_USER, net/ip6_route.h


class Message(Protocol):
    """A decoded rtnetlink message: header fields by key, attributes by name."""

    def __getitem__(self, field: str) -> Any: ...  # noqa: ANN401 - the field decides

    def get_attr(self, name: str) -> Any: ...  # noqa: ANN401 - the attribute decides


def read_link(message: Message) -> Link:
    """Convert one RTM_NEWLINK message."""
    # Each `get_attr` scans all forty attributes.
    held = {slot.name: slot for slot in message["attrs"]}

    def value(name: str) -> Any:  # noqa: ANN401 - the attribute decides
        return held[name].value if name in held else None

    info = value("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    port = info.get_attr("IFLA_INFO_SLAVE_DATA") if info and info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge" else None
    return Link(
        name=value("IFLA_IFNAME"),
        index=message["index"],
        kind=kind,
        mtu=value("IFLA_MTU") or 0,
        mac=value("IFLA_ADDRESS") or "",
        flags=frozenset(name for name, bit in LINK_FLAGS.items() if message["flags"] & bit),
        master=value("IFLA_MASTER") or 0,
        tx_queue_length=value("IFLA_TXQLEN") or 0,
        settings=read_vxlan(message) if kind == "vxlan" else read_ipip(message) if kind == "ipip" else None,
        hairpin=bool(port.get_attr("IFLA_BRPORT_MODE")) if port else False,
        alias=value("IFLA_IFALIAS") or "",
    )


def read_vxlan(message: Message) -> VxlanSettings | None:
    """Convert one RTM_NEWLINK message; None if it is not a vxlan, or one for a multicast group."""
    data = _data_of(message, "vxlan")
    if data is None or data.get_attr("IFLA_VXLAN_GROUP") or data.get_attr("IFLA_VXLAN_GROUP6"):
        return None
    local = data.get_attr("IFLA_VXLAN_LOCAL") or data.get_attr("IFLA_VXLAN_LOCAL6")
    if local is None or data.get_attr("IFLA_VXLAN_L2MISS"):
        return None
    return VxlanSettings(
        vni=data.get_attr("IFLA_VXLAN_ID"),
        underlay=data.get_attr("IFLA_VXLAN_LINK") or 0,
        local=ip_address(local),
        port=data.get_attr("IFLA_VXLAN_PORT"),
        learning=bool(data.get_attr("IFLA_VXLAN_LEARNING")),
        # A flag without a value: its presence counts.
        gbp=any(name == "IFLA_VXLAN_GBP" for name, _ in data["attrs"]),
    )


def read_ipip(message: Message) -> TunnelSettings | None:
    """Convert one RTM_NEWLINK message; None if the device is not an ipip tunnel."""
    data = _data_of(message, "ipip")
    if data is None:
        return None
    local, remote = data.get_attr("IFLA_IPIP_LOCAL") or "0.0.0.0", data.get_attr("IFLA_IPIP_REMOTE")
    fou = data.get_attr("IFLA_IPIP_ENCAP_TYPE") == FOU
    return TunnelSettings(
        ip_address(local),
        ip_address(remote) if remote and remote != "0.0.0.0" else None,
        ttl=data.get_attr("IFLA_IPIP_TTL") or 0,
        fou_port=data.get_attr("IFLA_IPIP_ENCAP_DPORT") if fou else None,
        cut=message.get_attr("IFLA_GSO_MAX_SEGS") == 1,
    )


def _data_of(message: Message, kind: str) -> Any:  # noqa: ANN401 - pyroute2 ships no types
    info = message.get_attr("IFLA_LINKINFO")
    if info is None or info.get_attr("IFLA_INFO_KIND") != kind:
        return None
    return info.get_attr("IFLA_INFO_DATA")


def read_forwarding_entry(message: Message) -> ForwardingDatabaseEntry | None:
    """Convert one RTM_NEWNEIGH message of the bridge family; None for a learned one, or without a peer."""
    mac, destination = message.get_attr("NDA_LLADDR"), message.get_attr("NDA_DST")
    if not message["state"] & PERMANENT:
        return None
    return ForwardingDatabaseEntry(mac, ip_address(destination)) if mac and destination else None


def read_address(message: Message) -> IPInterface:
    """Convert one RTM_NEWADDR message."""
    # IFA_ADDRESS is the other end's address on a point-to-point link.
    own = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ip_interface(f"{own}/{message['prefixlen']}")


def read_assigned_address(message: Message) -> AssignedAddress:
    """Convert one RTM_NEWADDR message with its flags."""
    address, flags = read_address(message), message["flags"]
    return AssignedAddress(
        address,
        device=message["index"],
        scope=message["scope"],
        permanent=bool(flags & ENDLESS),
        secondary=address.version == 4 and bool(flags & SECONDARY),
        temporary=address.version == 6 and bool(flags & TEMPORARY),
        deprecated=bool(flags & DEPRECATED),
        duplicate=bool(flags & DUPLICATE_FOUND),
    )


def read_route(message: Message, device_names: dict[int, str]) -> Route:
    """Convert one RTM_NEWROUTE message; `device_names` by interface index."""
    gateway, source = message.get_attr("RTA_GATEWAY"), message.get_attr("RTA_PREFSRC")
    index = message.get_attr("RTA_OIF")
    ipv6, kind = message["family"] == IPV6, _name(ROUTE_KINDS, message["type"])
    metric = message.get_attr("RTA_PRIORITY") or 0
    # The kernel attaches IPv6 routes without a device to loopback.
    nowhere = index is None or (ipv6 and kind in ("unreachable", "blackhole", "prohibit"))
    return Route(
        destination=ip_network(f"{message.get_attr('RTA_DST') or ('::' if ipv6 else '0.0.0.0')}/{message['dst_len']}"),
        device=None if nowhere else device_names.get(index, f"if{index}"),
        gateway=ip_address(gateway) if gateway else None,
        scope=_name(ROUTE_SCOPES, message["scope"]),
        metric=0 if ipv6 and metric == IPV6_DEFAULT_METRIC else metric,
        kind=kind,
        protocol=_name(ROUTE_PROTOCOLS, message["proto"]),
        source=ip_address(source) if source else None,
        onlink=bool(message["flags"] & ONLINK),
    )


def _name(names: dict[str, int], number: int) -> str:
    return next((name for name, value in names.items() if value == number), str(number))
