"""An etcd member that has lost its disk while the others live comes back as a new member, by the lab alone."""

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.lab import Lab
from tests.waiting import wait_until

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {{name: disk}}
etcd: {{members: 3, tls: {tls}}}
nodes: {{node1: {{}}, node2: {{}}}}
"""


def members(lab: Lab) -> dict[str, str]:
    """Name → id."""
    lines = lab.testbed("etcdctl", "--", "member", "list").out.splitlines()
    return {fields[2]: fields[0] for fields in (line.split(", ") for line in lines) if len(fields) > 2}


def is_replaced(lab: Lab, before: dict[str, str]) -> bool:
    """Report whether etcd2 has another id than before; etcdctl may fail meanwhile."""
    return members(lab).get("etcd2", before["etcd2"]) != before["etcd2"]


def healthy(handle: LabHandle) -> bool:
    return all(member["healthy"] for member in handle.status()["etcd"])


@pytest.mark.parametrize("tls", ["false", "true"])
def test_a_member_without_its_disk_is_removed_and_added_again(new_lab: NewLab, tls: str) -> None:
    with new_lab(CLUSTER.format(tls=tls)) as handle:
        lab = Lab(handle.name)
        before = members(lab)
        leases = lab.must("get", "leases")
        lab.run("etcd2", "rm", "-rf", "/run/etcd")
        lab.must("fault", "etcd", "kill", "etcd2")
        wait_until(lambda: is_replaced(lab, before), timeout_s=60, what="replaced")
        wait_until(lambda: healthy(handle), timeout_s=30, what="all members are healthy")
        after = members(lab)
        assert {name for name in before if before[name] != after[name]} == {"etcd2"}
        assert len(after) == 3
        assert "EtcdMemberReplaced" in lab.must("events")
        assert [line.split()[0] for line in lab.must("get", "leases").splitlines()] == [
            line.split()[0] for line in leases.splitlines()
        ]


def test_a_member_without_its_disk_waits_until_the_others_have_a_leader(new_lab: NewLab) -> None:
    with new_lab(CLUSTER.format(tls="false")) as handle:
        lab = Lab(handle.name)
        before = members(lab)
        # So that the last one has no leader, as for a moment whenever the leader is the one that dies.
        lab.must("fault", "etcd", "stop", "etcd3")
        lab.run("etcd2", "rm", "-rf", "/run/etcd")
        lab.must("fault", "etcd", "kill", "etcd2")
        waits = "cannot rejoin yet: the other members have no leader"
        wait_until(lambda: waits in lab.must("events"), timeout_s=30, what="it says why it waits")
        lab.must("fault", "heal")
        wait_until(lambda: is_replaced(lab, before), timeout_s=60, what="replaced")
        wait_until(lambda: healthy(handle), timeout_s=30, what="all members are healthy")
        assert len(members(lab)) == 3
