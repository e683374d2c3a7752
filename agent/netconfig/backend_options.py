"""The options of each backend type in the network config's `Backend`, in flannel's names, with its defaults. Pure."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent.netconfig.fields import Fields

UDP_PORT = 8285
"""Default of the udp backend's `Port`; source and destination port of every datagram."""
VXLAN_PORT = 8472
"""What `Port` 0 means: the Linux kernel's own default, older than IANA's 4789."""
WIREGUARD_PORT, WIREGUARD_PORT_V6 = 51820, 51821
WIREGUARD_MODES = ("separate", "auto", "ipv4", "ipv6")
LARGEST_VNI = 9_999_999
"""The device is called `flannel.VNI`, and a name has at most 15 characters (IFNAMSIZ, linux/if.h)."""
LARGEST_VNI_DUAL_STACK = 9_999
"""The same for `flannel-v6.VNI`."""
SHELL_OPERATORS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1"})
"""Words that mean something to a shell only; a command with one would do something else than its author meant."""
SMALLEST_MTU, LARGEST_MTU = 576, 65535
"""Bytes; RFC 791 §3.1, and what a 16-bit length can say."""

BACKEND_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "udp": ("Port",),
    "vxlan": ("VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"),
    "host-gw": (),
    "ipip": ("DirectRouting",),
    "alloc": (),
    "wireguard": ("ListenPort", "ListenPortV6", "MTU", "PSK", "PersistentKeepaliveInterval", "Mode"),
    "extension": ("PreStartupCommand", "PostStartupCommand", "SubnetAddCommand", "SubnetRemoveCommand"),
}
"""Options that flannel knows, by backend type."""
DUAL_STACK = frozenset({"vxlan", "host-gw", "wireguard"})
"""Backends that carry IPv6 beside IPv4."""


@dataclass(frozen=True, slots=True)
class UdpOptions:
    """Backend type udp."""

    port: int = UDP_PORT


@dataclass(frozen=True, slots=True)
class VxlanOptions:
    """Backend type vxlan."""

    vni: int = 1
    port: int = VXLAN_PORT
    mtu: int | None = None
    """Of the underlay, in bytes; None: as the interface has it."""
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False
    """Peers on a network of our own get plain routes, as with host-gw."""


@dataclass(frozen=True, slots=True)
class IpipOptions:
    """Backend type ipip."""

    direct_routing: bool = False


@dataclass(frozen=True, slots=True)
class WireguardOptions:
    """Backend type wireguard."""

    listen_port: int = WIREGUARD_PORT
    listen_port_v6: int = WIREGUARD_PORT_V6
    mtu: int | None = None
    psk: str = ""
    """Pre-shared key of all nodes, base64; empty: none."""
    keepalive_s: int = 0
    mode: str = "separate"


@dataclass(frozen=True, slots=True)
class ExtensionOptions:
    """Backend type extension: programs with their arguments; none is run by a shell."""

    pre_startup: tuple[str, ...] = ()
    post_startup: tuple[str, ...] = ()
    subnet_add: tuple[str, ...] = ()
    subnet_remove: tuple[str, ...] = ()


BackendOptions = UdpOptions | VxlanOptions | IpipOptions | WireguardOptions | ExtensionOptions | None


def read_backend_options(
    backend_type: str, options: Mapping[str, object], *, dual_stack: bool = False
) -> tuple[BackendOptions, list[str]]:
    """The options as values, and a problem for each that is wrong; None where the type has none or is not known."""
    fields = _Options(options)
    readers: dict[str, Callable[[], BackendOptions]] = {
        "udp": lambda: _udp(fields),
        "vxlan": lambda: _vxlan(fields, dual_stack),
        "ipip": lambda: _ipip(fields),
        "wireguard": lambda: _wireguard(fields),
        "extension": lambda: _extension(fields),
    }
    found = readers[backend_type]() if backend_type in readers else None
    return found, fields.problems


def _udp(fields: "_Options") -> UdpOptions:
    return UdpOptions(fields.number("Port", UDP_PORT, 1, 65535, "a number from 1 to 65535", "not a port"))


def _vxlan(fields: "_Options", dual_stack: bool) -> VxlanOptions:
    largest = LARGEST_VNI_DUAL_STACK if dual_stack else LARGEST_VNI
    return VxlanOptions(
        vni=fields.number("VNI", 1, 1, largest, f"a number from 1 to {largest}, so that the device can be named by it"),
        port=fields.number("Port", 0, 0, 65535, "a number from 1 to 65535, or 0 for 8472", "not a port") or VXLAN_PORT,
        mtu=fields.mtu(),
        gbp=fields.switch("GBP", False),
        learning=fields.switch("Learning", False),
        direct_routing=fields.switch("DirectRouting", False),
    )


def _ipip(fields: "_Options") -> IpipOptions:
    return IpipOptions(fields.switch("DirectRouting", False))


def _wireguard(fields: "_Options") -> WireguardOptions:
    port = "a number from 1 to 65535"
    mode = fields.word("Mode") or "separate"
    if mode not in WIREGUARD_MODES:
        fields.problem("Mode", "unknown mode", mode, ", ".join(WIREGUARD_MODES))
    psk = fields.word("PSK")
    # 32 bytes in base64 (wg(8)); the last character of 43 says four bits.
    if psk and not re.fullmatch(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", psk):
        fields.problem("PSK", "not a key", "a text of other form", "32 bytes in base64, as `wg genpsk` prints them")
    return WireguardOptions(
        listen_port=fields.number("ListenPort", WIREGUARD_PORT, 1, 65535, port, "not a port"),
        listen_port_v6=fields.number("ListenPortV6", WIREGUARD_PORT_V6, 1, 65535, port, "not a port"),
        mtu=fields.mtu(),
        psk=psk,
        keepalive_s=fields.number("PersistentKeepaliveInterval", 0, 0, 65535, "seconds, 0 to 65535"),
        mode=mode,
    )


def _extension(fields: "_Options") -> ExtensionOptions:
    return ExtensionOptions(
        pre_startup=fields.command("PreStartupCommand"),
        post_startup=fields.command("PostStartupCommand"),
        subnet_add=fields.command("SubnetAddCommand"),
        subnet_remove=fields.command("SubnetRemoveCommand"),
    )


class _Options(Fields):
    """Fields of `Backend`: problems name them so."""

    def problem(self, name: str, what: str, got: object, want: str) -> None:
        super().problem(f"Backend.{name}", what, got, want)

    def number(
        self, name: str, default: int, lowest: int, highest: int, want: str, what: str = "not such a number"
    ) -> int:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            self.problem(name, what, value, want)
            return default
        return value

    def mtu(self) -> int | None:
        """The option MTU; 0 counts as absent, as Go's zero value does."""
        if self.get("MTU") in (None, 0) and not isinstance(self.get("MTU"), bool):
            return None
        want = f"bytes, {SMALLEST_MTU} to {LARGEST_MTU}"
        return self.number("MTU", SMALLEST_MTU, SMALLEST_MTU, LARGEST_MTU, want, "not an MTU")

    def word(self, name: str) -> str:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self.problem(name, "not a string", value, "a text in quotes")
        return value if isinstance(value, str) else ""

    def command(self, name: str) -> tuple[str, ...]:
        """A program and its arguments, quoted as for a shell."""
        try:
            words = tuple(shlex.split(self.word(name)))
        except ValueError as error:
            self.problem(name, f"cannot be split into words: {error}", self.get(name), "a program and its arguments")
            return ()
        operators = [word for word in words if word in SHELL_OPERATORS]
        if operators:
            what = "needs a shell, and none is used"
            self.problem(name, what, operators[0], "one program with its arguments, or a script in a file")
        return words
