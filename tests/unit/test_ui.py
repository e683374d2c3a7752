"""What the page of `testbed ui` is told: rates out of counters, tables out of answers."""

from testbed.cluster.kinds import SERVICE
from testbed.control.answers.lab import EventLine
from testbed.ui import tables
from testbed.ui.traffic import rates
from tests.pictures import Facts, facts_of_cluster


def counted(**counters: int) -> Facts:
    facts = facts_of_cluster("nginx_tomcat")
    facts["machines"][0]["interfaces"][0] |= counters
    return facts


def test_rates_are_differences_by_time() -> None:
    before, after = counted(tx_bytes=1000, rx_dropped=1), counted(tx_bytes=3000, rx_dropped=5)
    assert rates(before, after, 2.0)["node1/node1-eth0"] == {
        "tx_bytes": 1000.0,
        "rx_bytes": 0.0,
        "tx_dropped": 0.0,
        "rx_dropped": 2.0,
    }


def test_an_interface_that_was_recreated_has_no_rate() -> None:
    found = rates(counted(tx_bytes=3000), counted(tx_bytes=10), 1.0)
    assert "node1/node1-eth0" not in found
    assert "s1/s1-eth1" in found


def test_a_new_interface_and_no_time_have_no_rate() -> None:
    before, after = counted(), counted()
    before["machines"][0]["interfaces"] = []
    assert "node1/node1-eth0" not in rates(before, after, 1.0)
    assert rates(after, after, 0.0) == {}


def test_drops_are_named_only_where_there_are_some() -> None:
    facts = facts_of_cluster("nginx_tomcat")
    facts["nodes"][0]["drops"] = {"no_route": 2, "ttl": 0}
    assert [row[6] for row in tables.nodes(facts)["rows"]] == ["no_route 2", "-"]


def test_tables_have_a_row_for_each_thing_and_a_cell_for_each_heading() -> None:
    facts = facts_of_cluster("nginx_tomcat")
    facts["nodes"][0]["forwarding"] = [{"subnet": "10.0.90.0/24", "via": "192.168.8.228:8285"}]
    facts["nodes"][1]["forwarding"] = None
    for made, rows in ((tables.nodes(facts), 2), (tables.pods(facts), 3), (tables.forwarding(facts), 1)):
        assert len(made["rows"]) == rows
        assert {len(row) for row in made["rows"]} == {len(made["headings"])}
    assert tables.forwarding(facts)["rows"] == [["node1", "10.0.90.0/24", "192.168.8.228:8285"]]


def test_the_newest_event_is_the_first() -> None:
    events: list[EventLine] = [
        {"at": str(number), "type": "Normal", "object": "o", "reason": "r", "message": "m"} for number in range(300)
    ]
    assert [row[0] for row in tables.events(events)["rows"]][:2] == ["299", "298"]
    assert len(tables.events(events)["rows"]) == tables.EVENTS_SHOWN


def test_a_trace_goes_to_the_first_tcp_port_of_a_pod() -> None:
    containers = [{"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 80}]}, {}]
    pods = [{"metadata": {"name": "web"}, "spec": {"containers": containers}}]
    assert tables.ports([*pods, {"metadata": {"name": "shell"}, "spec": {"containers": [{}]}}]) == {"web": 80}


def test_equal_names_of_two_namespaces_are_two_rows_and_two_targets() -> None:
    def thing(namespace: str, spec: object) -> dict[str, object]:
        return {"metadata": {"name": "web", "namespace": namespace}, "spec": spec, "status": {}}

    pods = [
        thing(one, {"containers": [{"ports": [{"containerPort": port}]}]})
        for one, port in (("default", 80), ("shop", 81))
    ]
    assert tables.ports(pods) == {"web": 80, "shop/web": 81}
    ports = {"ports": [{"port": 80}], "type": "ClusterIP", "clusterIP": "10.96.1.1"}
    services = [{**thing(one, ports), "testbed": {"readyEndpoints": 1}} for one in ("default", "shop")]
    assert tables.objects(SERVICE, services[:1])["headings"][0] == "service"
    both = tables.objects(SERVICE, services)
    assert (both["headings"][:2], [row[:2] for row in both["rows"]]) == (
        ["namespace", "service"],
        [["default", "web"], ["shop", "web"]],
    )
