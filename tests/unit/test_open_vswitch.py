"""What a cluster file may say of Open vSwitch, and how its table of MAC addresses is read."""

import pytest

from testbed.cluster.problems import SpecError
from testbed.cluster.spec import read_cluster
from testbed.cluster.underlay_plan import plan_underlay
from testbed.host.doctor import error_line, program_checks, required_failures
from testbed.lab.open_vswitch import port_behind

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {{name: c}}
network: {{Network: 10.0.0.0/16, Backend: {{Type: udp}}}}
underlay: {{cidr: 192.168.8.0/24, {underlay}}}
nodes: {{node1: {{}}, node2: {{}}}}
"""
LOOP = (
    "switches: [s1, s2, s3], links: [{ends: [s1, s2]}, {ends: [s2, s3]}, {ends: [s3, s1]}, "
    "{ends: [node1, s1]}, {ends: [node2, s2]}]"
)
TABLE = """\
 port  VLAN  MAC                Age
    2     0  02:00:c0:a8:08:65    1
LOCAL     0  02:00:c0:a8:08:66    1
"""


def refused(underlay: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_cluster(CLUSTER.format(underlay=underlay).encode(), "c.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "meant"), [("topology: single", False), ("switch: bridge", False), ("switch: ovs", True)]
)
def test_switches_are_bridges_unless_the_file_chooses_ovs(said: str, meant: bool) -> None:
    cluster = read_cluster(CLUSTER.format(underlay=said).encode(), "c.yaml")
    is_ovs = cluster.underlay.switch == "ovs"
    assert is_ovs is meant
    plan = plan_underlay(cluster.wiring, cluster.addresses, 1500, open_vswitch=is_ovs)
    assert plan.open_vswitch is meant


def test_another_switch_is_refused_with_the_supported_ones() -> None:
    said = refused("switch: openvswitch")
    assert "c.yaml:5:" in said
    assert "underlay.switch: " in said
    assert "got openvswitch; want bridge or ovs" in said


def test_a_machine_without_open_vswitch_lacks_something_for_such_a_lab_only() -> None:
    found = program_checks(lambda name: None if name == "ovs-vswitchd" else f"/usr/bin/{name}")
    assert required_failures(found) == ()
    (lacking,) = required_failures(found, {"underlay.switch: ovs"})
    want = "want the program: sudo scripts/install --ovs, or apt install openvswitch-switch)"
    assert error_line(lacking) == f"environment: ovs-vswitchd (got none on PATH; {want}"


def test_a_loop_of_open_vswitch_switches_is_refused_and_one_of_bridges_is_not() -> None:
    assert "underlay.switch: no loops of Open vSwitch switches (got one that " in refused(f"switch: ovs, {LOOP}")
    assert read_cluster(CLUSTER.format(underlay=LOOP).encode(), "c.yaml").wiring.spare


def test_the_port_behind_an_address_is_read_from_the_switchs_table() -> None:
    names = {"2": "s1-eth2"}
    assert port_behind(TABLE, "02:00:C0:A8:08:65", names) == "s1-eth2"
    assert port_behind(TABLE, "02:00:c0:a8:08:66", names) is None
    assert port_behind(TABLE, "02:00:c0:a8:08:67", names) is None
