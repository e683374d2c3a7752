"""The lab's etcd as flannel's registry: the network config, the leases, and the agents that may write them."""

from collections.abc import Collection, Iterable
from ipaddress import IPv4Address
from pathlib import Path

from agent.lease import Lease, LeaseAttrs, Subnet, parse_key
from testbed.cluster.agent_words import FLANNELS_PREFIX
from testbed.cluster.spec import Cluster
from testbed.control.existing_etcd import ExistingEtcd
from testbed.lab.certificates import Authority, TlsFiles
from testbed.lab.etcd import TLS_DIRECTORY, EtcdCluster, EtcdEntry, EtcdMember, Report
from testbed.lab.etcd_access import admit, agent_user, set_up_access
from testbed.lab.existing_etcd import OwnKeys


class LabRegistry:
    """The lab's data in etcd. Members exist from `start` on."""

    def __init__(self, authority: Authority | None, report: Report, existing: ExistingEtcd | None = None) -> None:
        """With `authority` None, etcd admits all clients, without TLS. `report` is called for replaced members.

        `existing` is a cluster that is not the lab's.
        """
        self.authority = authority
        self.existing = existing
        self.prefix = FLANNELS_PREFIX if existing is None else existing.claim.prefix
        """What the lab's keys begin with."""
        self._report = report
        self._etcd = EtcdCluster([])
        self._users: set[str] = set()
        """Agents that are users of etcd."""

    @property
    def shares_network(self) -> bool:
        """Return whether agents outside the lab may use the same keys."""
        return self.existing is not None and self.existing.claim.is_named

    @property
    def etcd(self) -> EtcdCluster:
        """Return the servers themselves."""
        return self._etcd

    def start(self, members: Iterable[EtcdMember]) -> None:
        """Start these servers; return before they answer."""
        self._etcd = EtcdCluster(list(members), self._report, self.existing.login if self.existing else {})
        self._etcd.start()

    def prepare(self, cluster: Cluster) -> None:
        """Write the cluster file's network config and reservations, and set up access control. Raises EtcdFailed."""
        if self.existing is None or OwnKeys(self.existing.claim).take(self._etcd, cluster):
            self.write_config(cluster.network_json)
        for name, node in cluster.nodes.items():
            if node.reserved and node.subnet is not None:
                address = cluster.addresses.nodes[name]
                attrs = LeaseAttrs(public_ip=address, public_ipv6=cluster.addresses.ipv6_of(address))
                self._etcd.put(self.key_of(Subnet(node.subnet, node.ipv6_subnet)), attrs.to_json().encode())

        if self.authority is not None and self.existing is None:
            users = {agent_user(node) for node in cluster.nodes} | self._users
            set_up_access(self._etcd, self.prefix, sorted(users))
            self._users = users

    def write_config(self, network_json: str) -> None:
        """Write flannel's network config. Raises EtcdFailed."""
        self._etcd.put(f"{self.prefix}/config", network_json.encode())

    def leave(self, addresses: Collection[IPv4Address]) -> list[str]:
        """Remove the lab's keys from a cluster that is not its own; return them. Raises EtcdFailed.

        `addresses` are those of its nodes.
        """
        if self.existing is None or not self._etcd.members:
            return []
        return OwnKeys(self.existing.claim).leave(self._etcd, addresses)

    def key_of(self, subnet: Subnet) -> str:
        """Return the key of a subnet's lease."""
        return f"{self.prefix}/subnets/{subnet.key}"

    @property
    def agents_login(self) -> dict[str, str]:
        """Return the variables with which agents log in to a cluster that is not the lab's."""
        existing = self.existing
        if existing is None or not existing.user:
            return {}
        return {"FLANNELD_ETCD_USERNAME": existing.user, "FLANNELD_ETCD_PASSWORD": existing.password}

    def leases(self) -> list[Lease]:
        """Return the leases, by key. Invalid keys and values are omitted. Raises EtcdFailed."""
        found = [as_lease(entry) for entry in self._etcd.get_prefix(f"{self.prefix}/subnets")]
        return [lease for lease in found if lease is not None]

    def certificate_of(self, node: str, run_directory: Path) -> TlsFiles | None:
        """Make a node's agent a user of etcd, with a certificate below its /run; None if etcd has no TLS.

        Raises EtcdFailed.
        """
        if self.authority is None:
            return None
        user = agent_user(node)
        if self.existing is None and user not in self._users:
            admit(self._etcd, user)
            self._users.add(user)
        return self.authority.issue(run_directory / Path(TLS_DIRECTORY).name, TLS_DIRECTORY, user)


def as_lease(entry: EtcdEntry) -> Lease | None:
    """Return the lease in an etcd key; None if key or value are not a lease's."""
    try:
        subnet = parse_key(entry.key.rpartition("/")[2])
        attrs = LeaseAttrs.from_json(entry.value)
    except ValueError:
        return None
    return None if subnet is None else Lease(subnet, attrs, entry.etcd_lease_id, entry.mod_revision)
