"""The options of each backend type in the network config's `Backend`: flannel's names, checks and defaults. Pure.

Each option is a field of its backend's class.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from agent.netconfig.fields import Fields, WrongValue, boolean, text, whole

T = TypeVar("T")

UDP_PORT = 8285
"""Default of the udp backend's `Port`; source and destination port of every datagram."""
VXLAN_PORT = 8472
"""The value of `Port` 0: the Linux kernel's own default, older than IANA's 4789."""
WIREGUARD_PORT, WIREGUARD_PORT_V6 = 51820, 51821
WIREGUARD_MODES = ("separate", "auto", "ipv4", "ipv6")
LARGEST_VNI = 9_999_999
"""The device is called `flannel.VNI`, and a name has at most 15 characters (IFNAMSIZ, linux/if.h)."""
LARGEST_VNI_DUAL_STACK = 9_999
"""The same for `flannel-v6.VNI`."""
WANTED_VNI = (
    f"a number from 1 to {LARGEST_VNI}, with IPv6 {LARGEST_VNI_DUAL_STACK}, so that the device can be named by it"
)
SHELL_OPERATORS = frozenset({"|", "||", "&", "&&", ";", ">", ">>", "<", "2>&1"})
"""Words that only a shell understands; a command with one would not do what its author meant."""
SMALLEST_MTU, LARGEST_MTU = 576, 65535
"""Bytes; RFC 791 §3.1, and the largest 16-bit length."""

_PORT = whole(1, 65535, "a number from 1 to 65535", "not a port")
_NAME, _READ = "name", "read"
"""Metadata of an option's field: its name in the JSON, and its reader."""


def _vxlan_port(value: object) -> int:
    return whole(0, 65535, "a number from 1 to 65535, or 0 for 8472", "not a port")(value) or VXLAN_PORT


def _mtu(value: object) -> int | None:
    """Read an MTU; 0 counts as absent, like Go's zero value."""
    if value == 0 and not isinstance(value, bool):
        return None
    return whole(SMALLEST_MTU, LARGEST_MTU, f"bytes, {SMALLEST_MTU} to {LARGEST_MTU}", "not an MTU")(value)


def _mode(value: object) -> str:
    mode = text(value) or "separate"
    if mode not in WIREGUARD_MODES:
        raise WrongValue("unknown mode", ", ".join(WIREGUARD_MODES))
    return mode


def _psk(value: object) -> str:
    key = text(value)
    # 32 bytes in base64 (wg(8)); the last character of 43 holds four bits.
    if key and not re.fullmatch(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", key):
        raise WrongValue("not a key", "32 bytes in base64, as `wg genpsk` prints them", shown="another text")
    return key


def _command(value: object) -> tuple[str, ...]:
    """Read a program and its arguments, quoted as for a shell."""
    try:
        words = tuple(shlex.split(text(value)))
    except ValueError as error:
        raise WrongValue(f"cannot be split into words: {error}", "a program and its arguments") from None
    for word in words:
        if word in SHELL_OPERATORS:
            want = "one program with its arguments, or a script file"
            raise WrongValue("needs a shell, which is not used", want, shown=word)
    return words


def _option(name: str, read: Callable[[object], T], default: T, *, secret: bool = False) -> T:
    """Declare an option of the type that `read` returns."""
    return field(default=default, repr=not secret, metadata={_NAME: name, _READ: read})


@dataclass(frozen=True, slots=True)
class UdpOptions:
    """Backend type udp."""

    port: int = _option("Port", _PORT, UDP_PORT)


@dataclass(frozen=True, slots=True)
class VxlanOptions:
    """Backend type vxlan."""

    vni: int = _option("VNI", whole(1, LARGEST_VNI, WANTED_VNI), 1)
    port: int = _option("Port", _vxlan_port, VXLAN_PORT)
    mtu: int | None = _option("MTU", _mtu, None)
    """Of the underlay, in bytes; None: the interface's own."""
    gbp: bool = _option("GBP", boolean, False)
    learning: bool = _option("Learning", boolean, False)
    direct_routing: bool = _option("DirectRouting", boolean, False)
    """Peers on one of our own networks get plain routes, as with host-gw."""


@dataclass(frozen=True, slots=True)
class IpipOptions:
    """Backend type ipip."""

    direct_routing: bool = _option("DirectRouting", boolean, False)


@dataclass(frozen=True, slots=True)
class WireguardOptions:
    """Backend type wireguard."""

    listen_port: int = _option("ListenPort", _PORT, WIREGUARD_PORT)
    listen_port_v6: int = _option("ListenPortV6", _PORT, WIREGUARD_PORT_V6)
    mtu: int | None = _option("MTU", _mtu, None)
    psk: str = _option("PSK", _psk, "", secret=True)
    """Pre-shared key of all nodes, base64; empty: none."""
    keepalive_s: int = _option("PersistentKeepaliveInterval", whole(0, 65535, "seconds, 0 to 65535"), 0)
    mode: str = _option("Mode", _mode, "separate")


@dataclass(frozen=True, slots=True)
class ExtensionOptions:
    """Backend type extension: programs with their arguments; none runs in a shell."""

    pre_startup: tuple[str, ...] = _option("PreStartupCommand", _command, ())
    post_startup: tuple[str, ...] = _option("PostStartupCommand", _command, ())
    subnet_add: tuple[str, ...] = _option("SubnetAddCommand", _command, ())
    subnet_remove: tuple[str, ...] = _option("SubnetRemoveCommand", _command, ())


BackendOptions = UdpOptions | VxlanOptions | IpipOptions | WireguardOptions | ExtensionOptions

_CLASSES: Mapping[str, type[BackendOptions] | None] = {
    "udp": UdpOptions,
    "vxlan": VxlanOptions,
    "host-gw": None,
    "ipip": IpipOptions,
    "alloc": None,
    "wireguard": WireguardOptions,
    "extension": ExtensionOptions,
}
BACKEND_OPTIONS: Mapping[str, tuple[str, ...]] = {
    backend_type: () if options is None else tuple(one.metadata[_NAME] for one in fields(options))
    for backend_type, options in _CLASSES.items()
}
"""Options that flannel knows, by backend type."""
DUAL_STACK = frozenset({"vxlan", "host-gw", "wireguard"})
"""Backends that carry IPv6 beside IPv4."""


def read_backend_options(backend_type: str, given: Fields) -> BackendOptions | None:
    """Return the options as a value; None where the type has none or is unknown. Mistakes are collected in `given`."""
    options = _CLASSES.get(backend_type)
    if options is None:
        return None
    values: dict[str, Any] = {
        one.name: given.read(one.metadata[_NAME], one.metadata[_READ], one.default) for one in fields(options)
    }
    return options(**values)
