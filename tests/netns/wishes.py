"""Small wanted states for tests: `kernel.converge(bridge("br0", mtu=1400))`."""

from typing import Any

from agent.kernel.values import VethPeer, Wanted, WantedLink

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
