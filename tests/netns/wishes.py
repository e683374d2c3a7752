"""Small wanted states for tests: `kernel.converge(bridge("br0", mtu=1400))`."""

from collections.abc import Mapping
from typing import Any, TypeVar

from agent.kernel.values import IPAddress, VethPeer, Wanted, WantedLink, WantedNeighbours

Address = TypeVar("Address", bound=IPAddress)

WHY = "a test wants it"


def bridge(name: str, *, mtu: int, mac: str | None = None) -> Wanted:
    """Return a bridge, not up."""
    return Wanted(links=(WantedLink(name, WHY, kind="bridge", mtu=mtu, mac=mac),))


def veth(
    name: str,
    *,
    peer: str,
    mtu: int,
    mac: str | None = None,
    peer_mac: str | None = None,
    peer_netns_pid: int | None = None,
    peer_netns_name: str | None = None,
) -> Wanted:
    """Return a veth pair, not up; the peer in the namespace of that process."""
    far = VethPeer(peer, mtu, peer_mac, peer_netns_pid, peer_netns_name)
    return Wanted(links=(WantedLink(name, WHY, kind="veth", settings=far, mtu=mtu, mac=mac),))


def settings(name: str, **wanted: Any) -> Wanted:  # noqa: ANN401 - each setting has its own type
    """Return settings of a link that exists: `mtu=1400`, `master="br0"`, `hairpin=True` …"""
    return Wanted(links=(WantedLink(name, WHY, **wanted),))


def neighbours(device: str, entries: Mapping[Address, str]) -> Wanted:
    """Return permanent neighbours, MAC by address, all of one family; others stay."""
    [family] = {address.version for address in entries}
    held: dict[IPAddress, str] = {address: mac for address, mac in entries.items()}
    return Wanted(neighbours=(WantedNeighbours(device, held, WHY, family),))
