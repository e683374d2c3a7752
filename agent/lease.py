"""Leases as values: which node holds which subnet, and how to reach it. Pure.

Key and value texts are flannel's, byte for byte (`pkg/subnet/subnet.go`, `pkg/lease/lease.go`), because real flannelds
read what we write.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# Anchored at the right only, as in flannel: anything may precede the address.
KEY_PATTERN = re.compile(r"([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)-([0-9]+)(?:&([a-f0-9:]+)-([0-9]+))?\Z")

# Go's encoding/json escapes these, so that JSON is safe inside HTML and JavaScript.
GO_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class Subnet:
    """A node's share of the pod network: IPv4, and IPv6 beside it on a dual-stack network."""

    ipv4: IPv4Network
    ipv6: IPv6Network | None = None
    number: int = field(init=False, repr=False, compare=False)
    """The IPv4 network address, by which subnets are sorted."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Lease tables are built from these, and a network's own hash and order take a microsecond each time.
        object.__setattr__(self, "number", int(self.ipv4.network_address))
        object.__setattr__(self, "_hash", hash((self.ipv4, self.ipv6)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def key(self) -> str:
        """Return flannel's form of the subnet in a key, e.g. `10.1.74.0-24` or `10.1.74.0-24&fd00:1::-64`."""
        text = f"{self.ipv4.network_address}-{self.ipv4.prefixlen}"
        if self.ipv6 is None:
            return text
        return f"{text}&{self.ipv6.network_address}-{self.ipv6.prefixlen}"

    def overlaps(self, other: "Subnet") -> bool:
        """Report whether the two share an address, in either family."""
        if self.ipv4.overlaps(other.ipv4):
            return True
        return self.ipv6 is not None and other.ipv6 is not None and self.ipv6.overlaps(other.ipv6)

    def __str__(self) -> str:
        return str(self.ipv4) if self.ipv6 is None else f"{self.ipv4} and {self.ipv6}"


def parse_key(text: str) -> Subnet:
    """Return the subnet of a key below `<prefix>/subnets`.

    Raises ValueError with the key's problem. Stricter than flannel in one point: it refuses host bits.
    """
    match = KEY_PATTERN.search(text)
    if match is None:
        raise ValueError("does not end in a subnet such as 10.1.74.0-24")
    ipv4_text, ipv4_len, ipv6_text, ipv6_len = match.groups()
    # flannel parses the lengths into 5 and 7 bits.
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
        """Return the value as flannel writes it: in this order, without whitespace, `PublicIPv6` always, empty fields
        omitted.
        """
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
        """Parse a value; keys in any case, unknown ones ignored, as in Go. Raises ValueError with the problem."""
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
            ipv6 = None if public_ipv6 is None else IPv6Address(public_ipv6)
            if ipv6 is not None and ipv6.scope_id is not None:
                # Go's net.ParseIP refuses it too; the zone is an interface of the other node.
                raise ValueError(f"{public_ipv6!r} has a zone")
            return cls(
                public_ip=IPv4Address(public_ip),
                public_ipv6=ipv6,
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
        """Return whether an operator reserves this subnet for the node, so that it never expires."""
        return self.etcd_lease_id == 0


@dataclass(frozen=True, slots=True)
class BadEntry:
    """A key below `<prefix>/subnets` that is not a lease, and why."""

    key: str
    reason: str
    mod_revision: int
    subnet: Subnet | None = None
    """The subnet of the key when only its value is wrong."""


CLAIM_KEY = re.compile(r"claim-by-(.+)-of-([0-9.]+)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Claim:
    """A node's question whether the holder of its public address is alive; not flannel's, which takes the
    key for junk.
    """

    public_ip: IPv4Address
    node: str
    """The node that asks."""
    holder: str | None = None
    """The node that has answered."""

    @property
    def key(self) -> str:
        """Return the key, below `subnets`, which every node watches."""
        return f"claim-by-{self.node}-of-{self.public_ip}"

    def to_json(self) -> str:
        """Return the value: the holder of the address, once it has answered."""
        return json.dumps({"Holder": self.holder})


def parse_claim(key: str, value: str | bytes) -> Claim | None:
    """Parse a key below `<prefix>/subnets` as a claim; None if it is not one."""
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
    """Every lease as of `revision`; a subnet that is missing here is gone."""

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
    """A lease's key was deleted, expired, or was overwritten with something else."""

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
