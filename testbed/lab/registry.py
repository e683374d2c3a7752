"""The lab's etcd as flannel's registry: the network config, the leases, and the agents that may write them."""

from collections.abc import Iterable
from pathlib import Path

from agent.lease import Lease, LeaseAttrs, Subnet, parse_key
from testbed.cluster.spec import Cluster
from testbed.lab.certificates import Authority, TlsFiles
from testbed.lab.etcd import TLS_DIRECTORY, EtcdCluster, EtcdEntry, EtcdMember, Report
from testbed.lab.etcd_access import admit, agent_user, set_up_access

ETCD_PREFIX = "/coreos.com/network"
SUBNETS = f"{ETCD_PREFIX}/subnets"


class LabRegistry:
    """The lab's data in etcd. Members exist from `start` on."""

    def __init__(self, authority: Authority | None, report: Report) -> None:
        """With `authority` None, etcd admits all clients, without TLS. `report` is called for replaced members."""
        self.authority = authority
        self._report = report
        self._etcd = EtcdCluster([])
        self._users: set[str] = set()
        """Agents that are users of etcd."""

    @property
    def etcd(self) -> EtcdCluster:
        """Return the servers themselves."""
        return self._etcd

    def start(self, members: Iterable[EtcdMember]) -> None:
        """Start these servers; return before they answer."""
        self._etcd = EtcdCluster(list(members), self._report)
        self._etcd.start()

    def prepare(self, cluster: Cluster) -> None:
        """Write the cluster file's network config and reservations, and set up access control. Raises EtcdFailed."""
        self.write_config(cluster.network_json)
        for name, node in cluster.nodes.items():
            if node.reserved and node.subnet is not None:
                address = cluster.addresses.nodes[name]
                attrs = LeaseAttrs(public_ip=address, public_ipv6=cluster.addresses.ipv6_of(address))
                self._etcd.put(key_of(Subnet(node.subnet, node.ipv6_subnet)), attrs.to_json().encode())

        if self.authority is not None:
            users = {agent_user(node) for node in cluster.nodes} | self._users
            set_up_access(self._etcd, ETCD_PREFIX, sorted(users))
            self._users = users

    def write_config(self, network_json: str) -> None:
        """Write flannel's network config. Raises EtcdFailed."""
        self._etcd.put(f"{ETCD_PREFIX}/config", network_json.encode())

    def leases(self) -> list[Lease]:
        """Return the leases, by key. Invalid keys and values are omitted. Raises EtcdFailed."""
        found = [as_lease(entry) for entry in self._etcd.get_prefix(SUBNETS)]
        return [lease for lease in found if lease is not None]

    def certificate_of(self, node: str, run_directory: Path) -> TlsFiles | None:
        """Make a node's agent a user of etcd, with a certificate below its /run; None if etcd has no TLS.

        Raises EtcdFailed.
        """
        if self.authority is None:
            return None
        user = agent_user(node)
        if user not in self._users:
            admit(self._etcd, user)
            self._users.add(user)
        return self.authority.issue(run_directory / Path(TLS_DIRECTORY).name, TLS_DIRECTORY, user)


def key_of(subnet: Subnet) -> str:
    """Return the key of a subnet's lease."""
    return f"{SUBNETS}/{subnet.key}"


def as_lease(entry: EtcdEntry) -> Lease | None:
    """Return the lease in an etcd key; None if key or value are not a lease's."""
    try:
        subnet = parse_key(entry.key.rpartition("/")[2])
        attrs = LeaseAttrs.from_json(entry.value)
    except ValueError:
        return None
    return None if subnet is None else Lease(subnet, attrs, entry.etcd_lease_id, entry.mod_revision)
