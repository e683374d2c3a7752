"""The network config that the operator keeps in etcd, in flannel's JSON, checked by flannel's rules. Pure.

Field names, defaults and rules are those of flannel's `pkg/subnet/config.go`; where this module is stricter (SubnetMin
above SubnetMax, a bad udp Port), flannel would fail later with a vaguer error. Sizes are prefix lengths, as in the
JSON.
"""

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NoReturn

from agent.errors import InvalidConfig
from agent.lease import Subnet
from agent.netconfig.backend_options import (
    BACKEND_OPTIONS,
    DUAL_STACK,
    LARGEST_VNI_DUAL_STACK,
    WANTED_VNI,
    BackendOptions,
    UdpOptions,
    VxlanOptions,
    read_backend_options,
)
from agent.netconfig.fields import Fields, boolean
from agent.netconfig.layout import IPV4_RULES, IPV6_RULES, read_layout


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """One network: its range, how nodes share it, and how packets travel."""

    network: IPv4Network
    subnet_len: int
    """Prefix length of every node's subnet."""
    subnet_min: IPv4Address
    """Base address of the first subnet that may be leased."""
    subnet_max: IPv4Address
    """Base address of the last one."""
    ipv6_network: IPv6Network | None = None
    ipv6_subnet_len: int | None = None
    ipv6_subnet_min: IPv6Address | None = None
    ipv6_subnet_max: IPv6Address | None = None
    backend_type: str = "udp"
    """In lower case."""
    backend: BackendOptions | None = field(default_factory=UdpOptions)
    """Its options; None for a backend without any."""
    unknown_options: tuple[str, ...] = field(default=(), compare=False)
    """Backend options unknown to flannel's backend of this type; flannel ignores them, typos included."""
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """Warnings for the operator about a valid config."""

    def allows(self, subnet: Subnet) -> bool:
        """Return whether a node may hold `subnet`: right length, between SubnetMin and SubnetMax, in each family."""
        ipv4 = subnet.ipv4
        if ipv4.prefixlen != self.subnet_len or not self.subnet_min <= ipv4.network_address <= self.subnet_max:
            return False
        if self.ipv6_subnet_min is None or self.ipv6_subnet_max is None:
            return subnet.ipv6 is None
        return (
            subnet.ipv6 is not None
            and subnet.ipv6.prefixlen == self.ipv6_subnet_len
            and self.ipv6_subnet_min <= subnet.ipv6.network_address <= self.ipv6_subnet_max
        )


def parse_network_config(text: bytes) -> NetworkConfig:
    """Read and check flannel's JSON under `<prefix>/config`.

    Keys match in any case and unknown ones are ignored, as in Go. Raises InvalidConfig that lists every problem, or
    the byte offset at which the text stops being JSON.
    """
    fields = Fields(_decode(text))
    if not fields.read("EnableIPv4", boolean, True):
        fields.problem("EnableIPv4", "a network without IPv4 cannot work with etcd", False, "true")
    enable_ipv6 = fields.read("EnableIPv6", boolean, False)
    ipv4 = read_layout(fields, IPV4_RULES)
    ipv6 = read_layout(fields, IPV6_RULES) if enable_ipv6 else None
    backend_type, given = _read_backend(fields)
    options = Fields(given, "Backend.")
    backend = read_backend_options(backend_type, options)
    if enable_ipv6 and backend_type in BACKEND_OPTIONS and backend_type not in DUAL_STACK:
        what, others = f"the {backend_type} backend carries IPv4 only", ", ".join(sorted(DUAL_STACK))
        fields.problem("EnableIPv6", what, True, f"false, or another Backend.Type: {others}")
    if enable_ipv6 and isinstance(backend, VxlanOptions) and backend.vni > LARGEST_VNI_DUAL_STACK:
        options.problem("VNI", "not such a number", backend.vni, WANTED_VNI)
    problems = fields.problems + options.problems
    if problems or ipv4 is None:
        raise InvalidConfig("network config: " + "; ".join(problems))
    known = {name.lower() for name in BACKEND_OPTIONS.get(backend_type, given)}
    return NetworkConfig(
        network=IPv4Network((ipv4.network, ipv4.network_len)),
        subnet_len=ipv4.subnet_len,
        subnet_min=IPv4Address(ipv4.subnet_min),
        subnet_max=IPv4Address(ipv4.subnet_max),
        ipv6_network=None if ipv6 is None else IPv6Network((ipv6.network, ipv6.network_len)),
        ipv6_subnet_len=None if ipv6 is None else ipv6.subnet_len,
        ipv6_subnet_min=None if ipv6 is None else IPv6Address(ipv6.subnet_min),
        ipv6_subnet_max=None if ipv6 is None else IPv6Address(ipv6.subnet_max),
        backend_type=backend_type,
        backend=backend,
        unknown_options=tuple(name for name in given if name.lower() not in known),
        warnings=tuple(layout.warning for layout in (ipv4, ipv6) if layout is not None and layout.warning is not None),
    )


def _read_backend(fields: Fields) -> tuple[str, dict[str, object]]:
    """Return the type in lower case and the other options."""
    # The code of flannel and its own test default to udp, its documentation to vxlan.
    if "Backend" not in fields:
        return "udp", {}
    backend = fields.get("Backend")
    if backend is not None and not isinstance(backend, dict):
        fields.problem("Backend", "not an object", backend, 'e.g. {"Type": "udp"}')
        return "", {}
    options: dict[str, object] = dict(backend or {})
    kind = Fields(options).get("Type")
    if not isinstance(kind, str) or not kind:
        fields.problem("Backend.Type", "unknown backend type", kind, 'e.g. "udp"')
        return "", {}
    return kind.lower(), {name: value for name, value in options.items() if name.lower() != "type"}


def _decode(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"network config: not UTF-8 at offset {error.start}") from None
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode("utf-8"))
        raise InvalidConfig(f"network config: not JSON at offset {offset} of {len(text)}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        # A number with thousands of digits, NaN, or thousands of nested brackets.
        raise InvalidConfig(f"network config: not usable JSON: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidConfig(
            f'network config: not an object at offset 0 (got {type(value).__name__}; want {{"Network": …}})'
        )
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
