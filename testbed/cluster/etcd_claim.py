"""Whose keys are below a prefix of an existing etcd: what a lab may use, and what it removes. Pure.

PREFIX/config, PREFIX/subnets/…     flannel's, as everywhere
PREFIX/labs/LAB                     the marker: which lab, of which machine, uses the prefix

A marker outlives a lab that was killed. The next lab of that name on that machine finds it and takes over.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address

SHOWN = 3
"""Keys of others that a message names."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A lab, among all that may use one etcd."""

    lab: str
    host: str
    """The machine's name, for messages."""
    machine: str
    """Its id, which differs where names do not."""
    rundir: str


@dataclass(frozen=True, slots=True)
class Marker:
    """The value of the marker."""

    claimant: Claimant
    wrote_config: bool
    """Whether the network config is this lab's: with others' agents there may be one already."""

    def to_json(self) -> str:
        """Return the marker's value."""
        return json.dumps({**asdict(self.claimant), "config": self.wrote_config})

    @classmethod
    def from_json(cls, value: bytes) -> "Marker | None":
        """Parse a value; None if it is no marker's."""
        try:
            fields = json.loads(value)
            wrote_config = bool(fields.pop("config"))
            return cls(Claimant(**{name: str(text) for name, text in fields.items()}), wrote_config)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True)
class PrefixClaim:
    """A lab's wish to use a prefix."""

    claimant: Claimant
    prefix: str
    is_named: bool
    """Whether the cluster file names it: then it may be in use by other agents."""

    @property
    def marker_key(self) -> str:
        """Return the marker's key."""
        return f"{self.prefix}/labs/{self.claimant.lab}"

    @property
    def config_key(self) -> str:
        """Return the network config's key."""
        return f"{self.prefix}/config"

    def marker(self, found: Mapping[str, bytes]) -> Marker | None:
        """Return our marker, which a lab that was killed has left; None if there is none of ours."""
        marker = Marker.from_json(found.get(self.marker_key, b""))
        return marker if marker is not None and marker.claimant == self.claimant else None

    def refusals(
        self, found: Mapping[str, bytes], network_json: str, addresses: Mapping[str, IPv4Address]
    ) -> Iterator[str]:
        """Say why the lab must not use the prefix with these keys below it, one line each.

        `addresses` are those of the lab's nodes by name.
        """
        if self.marker(found) is not None:
            return
        if self.marker_key in found:
            other = Marker.from_json(found[self.marker_key])
            who = f"lab {other.claimant.lab} of {other.claimant.host}" if other else "another program"
            # A prefix that the file names may have others' keys too.
            remove = self.marker_key if self.is_named else f"--prefix {self.prefix}/"
            yield (
                f"{self.prefix} is in use (got {self.marker_key} of {who}; want another --lab or etcd.prefix, or, if"
                f" that lab is gone: etcdctl del {remove})"
            )
        elif found and not self.is_named:
            keys = [*sorted(found)[:SHOWN], *(["…"] if len(found) > SHOWN else [])]
            yield (
                f"{self.prefix} has keys of another program (got {', '.join(keys)}; want etcd: {{prefix: KEY}} with"
                f" another key, or with this one to join what is there)"
            )
        else:
            yield from self._conflicts(found, network_json, addresses)

    def _conflicts(
        self, found: Mapping[str, bytes], network_json: str, addresses: Mapping[str, IPv4Address]
    ) -> Iterator[str]:
        config = found.get(self.config_key)
        if config is not None and not _is_same_json(config, network_json):
            got = config.decode(errors="replace")[:200]
            yield f"{self.config_key} is another network's (got {got}; want {network_json}, as in the cluster file)"
        names = {address: name for name, address in addresses.items()}
        for key, address in self._leases(found).items():
            if address in names:
                yield (
                    f"{key} is leased to {address}, which {names[address]} of this lab has too (want another address:"
                    f" nodes.{names[address]}.ip)"
                )

    def own_keys(self, found: Mapping[str, bytes], addresses: Collection[IPv4Address]) -> list[str]:
        """Return the keys that this lab has made; `addresses` are those of its nodes.

        The default prefix is the lab's alone. Below another, the network config stays where others hold subnets of it.
        """
        marker = self.marker(found)
        if marker is None:
            return []
        if not self.is_named:
            return list(found)
        leases = self._leases(found)
        own = [key for key, address in leases.items() if address in addresses]
        others = [key for key in found if key.startswith(f"{self.prefix}/subnets/") and key not in own]
        config = [self.config_key] if marker.wrote_config and not others and self.config_key in found else []
        return [*own, *config, self.marker_key]

    def _leases(self, found: Mapping[str, bytes]) -> dict[str, IPv4Address]:
        # Here, because users' pytest imports this module with the plugin, and nothing of the agent.
        from agent.lease import LeaseAttrs

        leases = {}
        for key, value in found.items():
            if key.startswith(f"{self.prefix}/subnets/"):
                try:
                    leases[key] = LeaseAttrs.from_json(value).public_ip
                except ValueError:
                    continue
        return leases


def _is_same_json(one: bytes, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False
