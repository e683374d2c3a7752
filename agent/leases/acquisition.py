"""How a node chooses its subnet from the registry: its own, its previous one, or a free one."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from agent.errors import RegistryError
from agent.etcd.registry import Registry
from agent.lease import Lease, LeaseAttrs, Snapshot, Subnet
from agent.leases.allocator import choose_subnet, obstacle
from agent.leases.claims import AddressClaims
from agent.netconfig.config import NetworkConfig

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Acquisition:
    """One node's request; `take` may be repeated while other nodes are faster."""

    _registry: Registry
    _config: NetworkConfig
    _attrs: LeaseAttrs
    _lease_ttl_s: int
    _claims: AddressClaims
    _previous_subnet: Subnet | None
    """Cleared once it cannot be ours again."""
    _own_addresses: Collection[IPv4Address | IPv6Address]
    """All addresses of this machine; a lease of the previous subnet with one of them is ours too."""

    def take(self, snapshot: Snapshot) -> tuple[Lease, str]:
        """Return our lease and its origin in words.

        Raises SubnetTaken or LeaseLost when another node was faster, NoFreeSubnet, AddressTaken and RegistryError.
        """
        held = self._held_for_us(snapshot)
        if held is not None:
            if held.subnet != self._previous_subnet:
                self._claims.ask(held)
            if held.attrs.public_ip != self._attrs.public_ip:
                return self._reuse(held), f"as before, previously at {held.attrs.public_ip}"
            return self._reuse(held), "registered for our public address"
        taken = [*snapshot.leases, *(entry.subnet for entry in snapshot.bad if entry.subnet is not None)]
        previous = self._previous_subnet
        if previous is not None:
            reason = obstacle(self._config, previous, taken)
            if reason is None:
                return self._registry.create(previous, self._attrs, self._lease_ttl_s), "as before"
            log.warning("previous subnet %s not reused: %s", previous, reason)
            self._previous_subnet = None
        subnet = choose_subnet(self._config, taken, str(self._attrs.public_ip))
        return self._registry.create(subnet, self._attrs, self._lease_ttl_s), "newly chosen"

    def _held_for_us(self, snapshot: Snapshot) -> Lease | None:
        """Return our lease that fits the config; release those that do not."""
        fitting = []
        for lease in snapshot.leases.values():
            if not self._is_ours(lease):
                continue
            if self._config.allows(lease.subnet):
                fitting.append(lease)
            elif lease.is_reservation:
                log.warning("reservation %s for our address does not fit the network config", lease.subnet)
            else:
                log.warning("our lease %s does not fit the network config: releasing it", lease.subnet)
                self._registry.delete(lease)
        return next((lease for lease in fitting if lease.subnet == self._previous_subnet), next(iter(fitting), None))

    def _is_ours(self, lease: Lease) -> bool:
        public_ip = lease.attrs.public_ip
        return public_ip == self._attrs.public_ip or (
            lease.subnet == self._previous_subnet and public_ip in self._own_addresses
        )

    def _reuse(self, lease: Lease) -> Lease:
        if lease.is_reservation:
            return self._with_our_attrs(lease)
        if renewed_ttl_s(self._registry, lease.etcd_lease_id) != self._lease_ttl_s:
            return self._registry.renew(lease, self._attrs, self._lease_ttl_s)
        return self._with_our_attrs(lease)

    def _with_our_attrs(self, lease: Lease) -> Lease:
        return lease if lease.attrs == self._attrs else self._registry.update(lease, self._attrs)


def renewed_ttl_s(registry: Registry, etcd_lease_id: int) -> int:
    """Return the restarted TTL; 0 when there is no such lease or no answer: the next write shows which."""
    try:
        return max(0, registry.keep_alive(etcd_lease_id))
    except RegistryError as error:
        log.info("not renewed, so the key gets a new etcd lease: %s", error)
        return 0
