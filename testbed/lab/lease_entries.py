"""What etcd's keys and values say of leases."""

from agent.lease import Lease, LeaseAttrs, parse_key
from testbed.lab.etcd import KeyValue


def as_lease(entry: KeyValue) -> Lease | None:
    """The lease that an etcd key holds; None when key or value are not a lease's."""
    try:
        subnet = parse_key(entry.key.rpartition("/")[2])
        attrs = LeaseAttrs.from_json(entry.value)
    except ValueError:
        return None
    return None if subnet is None else Lease(subnet, attrs, entry.etcd_lease_id, entry.mod_revision)
