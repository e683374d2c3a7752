"""Leases as values: which node holds which subnet, and how to reach it. Pure; no clock, no IO.

Key and value texts are flannel's, byte for byte (`pkg/subnet/subnet.go`, `pkg/lease/lease.go`), because real flannelds
read what we write.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# Anchored at the right only, as flannel's: whatever stands before the address is not looked at.
KEY_PATTERN = re.compile(r"([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)-([0-9]+)(?:&([a-f0-9:]+)-([0-9]+))?\Z")

# Go's encoding/json escapes these, so that JSON is safe inside HTML and JavaScript.
GO_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class Subnet:
    """A node's share of the pod network: IPv4, and IPv6 beside it on a dual-stack network."""

    ipv4: IPv4Network
    ipv6: IPv6Network | None = None
    number: int = field(init=False, repr=False, compare=False)
    """The IPv4 network's address: what subnets are sorted by."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Tables of leases are made of these, and a network's own hash and order take a microsecond each time.
        object.__setattr__(self, "number", int(self.ipv4.network_address))
        object.__setattr__(self, "_hash", hash((self.ipv4, self.ipv6)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def key(self) -> str:
        """How flannel spells the subnet in a key, e.g. `10.1.74.0-24` or `10.1.74.0-24&fd00:1::-64`."""
        text = f"{self.ipv4.network_address}-{self.ipv4.prefixlen}"
        if self.ipv6 is None:
            return text
        return f"{text}&{self.ipv6.network_address}-{self.ipv6.prefixlen}"

    def overlaps(self, other: "Subnet") -> bool:
        """Whether an address is in both, in either family."""
        if self.ipv4.overlaps(other.ipv4):
            return True
        return self.ipv6 is not None and other.ipv6 is not None and self.ipv6.overlaps(other.ipv6)

    def __str__(self) -> str:
        return str(self.ipv4) if self.ipv6 is None else f"{self.ipv4} and {self.ipv6}"


def parse_key(text: str) -> Subnet:
    """The subnet that a key below `<prefix>/subnets` names.

    Raises ValueError that says what is wrong with the key. Stricter than flannel in one point: host bits are refused.
    """
    match = KEY_PATTERN.search(text)
    if match is None:
        raise ValueError("does not end in a subnet such as 10.1.74.0-24")
    ipv4_text, ipv4_len, ipv6_text, ipv6_len = match.groups()
    # flannel reads the lengths into 5 and 7 bits.
    if len(ipv4_len) > 4 or int(ipv4_len) > 31:
        raise ValueError(f"prefix length {ipv4_len[:20]} is above 31")
    ipv4 = IPv4Network(f"{ipv4_text}/{int(ipv4_len)}")
    if ipv6_text is None:
        return Subnet(ipv4)
    if len(ipv6_len) > 4 or int(ipv6_len) > 127:
        raise ValueError(f"IPv6 prefix length {ipv6_len[:20]} is above 127")
    return Subnet(ipv4, IPv6Network(f"{ipv6_text}/{int(ipv6_len)}"))


@dataclass(frozen=True, slots=True)
class LeaseAttrs:
    """What a node publishes about itself under its lease key (flannel `lease.LeaseAttrs`)."""

    public_ip: IPv4Address
    public_ipv6: IPv6Address | None = None
    backend_type: str = ""
    """Empty for udp and alloc, as flannel writes it."""
    backend_data: object = None
    backend_v6_data: object = None

    def to_json(self) -> str:
        """The value as flannel writes it: this order, no blanks, `PublicIPv6` always, empty fields left out."""
        fields: dict[str, object] = {
            "PublicIP": str(self.public_ip),
            "PublicIPv6": None if self.public_ipv6 is None else str(self.public_ipv6),
        }
        optional = {
            "BackendType": self.backend_type or None,
            "BackendData": self.backend_data,
            "BackendV6Data": self.backend_v6_data,
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).translate(GO_ESCAPES)

    @classmethod
    def from_json(cls, text: str | bytes) -> "LeaseAttrs":
        """Read a value; keys in any case and unknown ones ignored, as in Go. Raises ValueError that says why not."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"value is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise ValueError("value is not a JSON object")
        fields = {name.lower(): item for name, item in value.items()}
        public_ip, public_ipv6 = fields.get("publicip"), fields.get("publicipv6")
        backend_type = fields.get("backendtype") or ""
        if not isinstance(public_ip, str):
            raise ValueError(
                "PublicIP is not an IPv4 address in quotes" if "publicip" in fields else "PublicIP is missing"
            )
        if public_ipv6 is not None and not isinstance(public_ipv6, str):
            raise ValueError("PublicIPv6 is neither null nor an address in quotes")
        if not isinstance(backend_type, str):
            raise ValueError("BackendType is not a string")
        try:
            return cls(
                public_ip=IPv4Address(public_ip),
                public_ipv6=None if public_ipv6 is None else IPv6Address(public_ipv6),
                backend_type=backend_type,
                backend_data=fields.get("backenddata"),
                backend_v6_data=fields.get("backendv6data"),
            )
        except ValueError as error:
            raise ValueError(f"PublicIP or PublicIPv6: {error}"[:200]) from None


@dataclass(frozen=True, slots=True)
class Lease:
    """One key below `<prefix>/subnets`."""

    subnet: Subnet
    attrs: LeaseAttrs
    etcd_lease_id: int
    """etcd's own TTL object; 0 means a reservation that never expires."""
    mod_revision: int

    @property
    def is_reservation(self) -> bool:
        """Whether an operator keeps this subnet for the node, so that it never expires."""
        return self.etcd_lease_id == 0


@dataclass(frozen=True, slots=True)
class BadEntry:
    """A key below `<prefix>/subnets` that is no lease, and why."""

    key: str
    reason: str
    mod_revision: int
    subnet: Subnet | None = None
    """The subnet whose key it stands under, when only the value is wrong."""


CLAIM_KEY = re.compile(r"claim-by-(.+)-of-([0-9.]+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Claim:
    """A node asks whether the holder of its public address lives; not flannel's, which takes the key for junk."""

    public_ip: IPv4Address
    node: str
    """Who asks."""
    holder: str | None = None
    """Who has answered."""

    @property
    def key(self) -> str:
        """Below `subnets`, where every node looks."""
        return f"claim-by-{self.node}-of-{self.public_ip}"

    def to_json(self) -> str:
        """The value: who holds the address, once somebody has said so."""
        return json.dumps({"Holder": self.holder})


def parse_claim(key: str, value: str | bytes) -> Claim | None:
    """The claim that stands under a key below `<prefix>/subnets`; None: it is none."""
    match = CLAIM_KEY.match(key)
    if match is None:
        return None
    try:
        holder = json.loads(value)["Holder"]
        return Claim(IPv4Address(match[2]), match[1], None if holder is None else str(holder))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every lease as of `revision`; a subnet that is not listed is gone."""

    leases: Mapping[Subnet, Lease]
    revision: int
    bad: tuple[BadEntry, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class LeaseAdded:
    """A lease appeared or changed its attributes."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseRemoved:
    """A lease's key was deleted, expired, or was overwritten with something that is no lease."""

    subnet: Subnet
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Delta:
    """Changes after the previous result, in etcd's order; at least one event, bad entry or claim."""

    events: tuple[LeaseAdded | LeaseRemoved, ...]
    revision: int
    bad: tuple[BadEntry, ...] = ()
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The watch is alive and has delivered everything up to `revision`."""

    revision: int


WatchResult = Snapshot | Delta
