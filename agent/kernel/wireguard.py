"""WireGuard devices of one namespace and their peers. Keys are base64; no secret is ever journalled."""

from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal
from pyroute2.netlink.generic.wireguard import WireGuard

from agent.errors import NetlinkError
from agent.kernel.kernel import Kernel
from agent.kernel.read import ALREADY_GONE
from agent.kernel.values import WireguardPeer, WireguardState

T = TypeVar("T")


class WireguardDevices:
    """The devices in the namespace of a `Kernel`, which makes and removes them. Every call raises NetlinkError."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def read(self, name: str) -> WireguardState | None:
        """Return the keys, port and peers of a device; None when there is none of that name."""
        link = self._kernel.link(name)
        if link is None or link.kind != "wireguard":
            return None
        return self._run(["wg", "show", name], lambda socket: _read_state(list(socket.info(name))))

    def set_device(self, name: str, *, private_key: str, port: int, why: str) -> None:
        """Give the device its key and the UDP port that it listens on."""
        command = ["wg", "set", name, "listen-port", str(port), "private-key", "/dev/stdin"]
        self._run(command, lambda socket: socket.set(name, private_key=private_key, listen_port=port))
        self._kernel.journal.record(command, why)

    def set_peer(self, name: str, peer: WireguardPeer, why: str) -> None:
        """Add a peer, or update the one with that key."""
        address, port = peer.endpoint
        shown = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
        allowed = sorted(map(str, peer.allowed))
        command = ["wg", "set", name, "peer", peer.public_key, "endpoint", shown, "allowed-ips", ",".join(allowed)]
        command += ["persistent-keepalive", str(peer.keepalive_s)]
        command += ["preshared-key", "/dev/stdin"] if peer.psk else []
        parts: dict[str, object] = {
            "public_key": peer.public_key,
            "endpoint_addr": str(address),
            "endpoint_port": port,
            "persistent_keepalive": peer.keepalive_s,
            "allowed_ips": allowed,
            "replace_allowed_ips": True,
        }
        if peer.psk:
            parts["preshared_key"] = peer.psk
        self._run(command, lambda socket: socket.set(name, peer=parts))
        self._kernel.journal.record(command, why)

    def remove_peer(self, name: str, public_key: str, why: str) -> None:
        """Make sure that there is no peer with that key."""
        command = ["wg", "set", name, "peer", public_key, "remove"]

        def remove(socket: Any) -> bool:  # noqa: ANN401 - pyroute2 ships no types
            try:
                socket.set(name, peer={"public_key": public_key, "remove": True})
            except KernelRefusal as error:
                if error.code in ALREADY_GONE:
                    return False
                raise
            return True

        if self._run(command, remove):
            self._kernel.journal.record(command, why)

    def _run(self, command: list[str], act: Callable[[Any], T]) -> T:
        def visit() -> T:
            with WireGuard() as socket:
                return act(socket)

        try:
            return self._kernel.run_inside(visit)
        except KernelRefusal as error:
            raise NetlinkError(f"{' '.join(command)}: {error.args[-1]}") from error


def _read_state(messages: Iterable[Any]) -> WireguardState:
    """Collect a device's state from one or more messages."""
    private_key, public_key, port = "", "", 0
    peers: dict[str, WireguardPeer] = {}
    for message in messages:
        private_key = _text(message.get_attr("WGDEVICE_A_PRIVATE_KEY")) or private_key
        public_key = _text(message.get_attr("WGDEVICE_A_PUBLIC_KEY")) or public_key
        port = message.get_attr("WGDEVICE_A_LISTEN_PORT") or port
        for item in message.get_attr("WGDEVICE_A_PEERS") or ():
            peer = _read_peer(item)
            known = peers.get(peer.public_key)
            # A peer with many networks spans several messages; the later ones have only the rest of the networks.
            peers[peer.public_key] = peer if known is None else known.with_allowed(peer.allowed)
    return WireguardState(private_key, public_key, port, peers)


def _read_peer(item: Any) -> WireguardPeer:  # noqa: ANN401 - pyroute2 ships no types
    endpoint = item.get_attr("WGPEER_A_ENDPOINT")
    psk = _text(item.get_attr("WGPEER_A_PRESHARED_KEY"))
    return WireguardPeer(
        public_key=_text(item.get_attr("WGPEER_A_PUBLIC_KEY")),
        endpoint=(ip_address(endpoint["addr"]), endpoint["port"]) if endpoint else (ip_address("0.0.0.0"), 0),
        allowed=frozenset(ip_network(allowed["addr"]) for allowed in item.get_attr("WGPEER_A_ALLOWEDIPS") or ()),
        # All zero means none.
        psk="" if set(psk.rstrip("=")) <= {"A"} else psk,
        keepalive_s=item.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
    )


def _text(value: Any) -> str:  # noqa: ANN401 - pyroute2 ships no types
    """Return a key that was decoded as bytes or as a structure that holds them."""
    if isinstance(value, dict):
        value = value.get("value", b"")
    return value.decode() if isinstance(value, bytes) else str(value or "")
