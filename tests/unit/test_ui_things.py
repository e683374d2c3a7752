"""What the page of `testbed ui` says of a thing that was clicked, and which faults it offers there."""

import pytest

from testbed.errors import InvalidInput
from testbed.faults.catalogue import parse
from testbed.ui import tables
from testbed.ui.things import every_offer, has_routes, offers_of, rows_of_thing
from tests.pictures import Facts, facts_of_cluster

CABLE = "node2/node2-eth0 s1/s1-eth2"


def facts(**more: object) -> Facts:
    found = facts_of_cluster("nginx_tomcat") | {"faults": []} | more
    port = {"port": 80, "protocol": "TCP", "node_port": 30080}
    found["services"] = [
        {"name": "web", "type": "NodePort", "cluster_ip": "10.96.0.80", "ports": [port], "endpoints": 2}
    ]
    return found


@pytest.mark.parametrize(
    ("kind", "name", "row"),
    [
        ("node", "node1", ("address", "192.168.8.227")),
        ("agent", "node1", ("peers", "1 of 1")),
        ("pod", "tomcat", ("node", "node2")),
        ("device", "node1/flannel0", ("overlay", "tun, 10.0.1.0/32")),
        ("machine", "etcd1", ("kind", "etcd")),
        ("machine", "s1", ("switch", "up")),
        ("service", "web", ("port", "80/TCP, node port 30080")),
        ("link", CABLE, ("cable", "unshaped")),
    ],
)
def test_everything_in_the_picture_has_its_facts(kind: str, name: str, row: tuple[str, str]) -> None:
    known = facts()
    for machine in known["machines"]:
        if machine["name"] == "node1":
            machine["interfaces"].append({**machine["interfaces"][0], "name": "flannel0"})
    assert row in rows_of_thing(known, kind, name)


@pytest.mark.parametrize(("kind", "name"), [("node", "node9"), ("link", "a/b c/d"), ("shell", "node1"), ("pod", "")])
def test_a_missing_object_is_refused(kind: str, name: str) -> None:
    with pytest.raises(InvalidInput, match="facts: no"):
        rows_of_thing(facts(), kind, name)


def test_active_faults_are_among_the_facts_of_their_objects() -> None:
    fault = {"number": 4, "fault": "link loss node2 s1 30", "did": "tc", "since": "", "undone": "", "on": True}
    assert ("active fault 4", "link loss node2 s1 30: tc") in rows_of_thing(facts(faults=[fault]), "link", CABLE)
    assert not [row for row in rows_of_thing(facts(faults=[fault]), "node", "node1") if "fault" in row[0]]


def test_a_cable_can_be_cut_and_made_to_lose_and_a_node_cut_off() -> None:
    assert ("cut", ("link", "down", "node2", "s1")) in offers_of(facts(), "link", CABLE)
    assert ("loss 30 %", ("link", "loss", "node2", "s1", "30")) in offers_of(facts(), "link", CABLE)
    assert ("cut off (partition)", ("partition", "node1")) in offers_of(facts(), "node", "node1")
    assert ("stop", ("agent", "stop", "node1")) in offers_of(facts(), "agent", "node1")
    assert offers_of(facts(), "pod", "nginx") == offers_of(facts(), "link", "node1/x node2/y") == []


def test_every_fault_that_is_offered_is_one() -> None:
    offered = every_offer(facts())
    assert len(offered) > 15
    for words in offered:
        parse(list(words))


def test_routes_are_read_from_objects_with_a_network_namespace() -> None:
    names = (("node", "node1"), ("pod", "nginx"), ("machine", "gw"), ("machine", "s1"), ("service", "web"))
    assert [has_routes(facts(), *name) for name in names] == [True, True, True, False, False]


def test_a_trace_to_a_service_goes_to_its_first_tcp_port() -> None:
    assert tables.ports([], facts()["services"]) == {"svc/web": 80}
