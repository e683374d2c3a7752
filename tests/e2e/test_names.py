"""Names of Services and pods, on the three nodes of services.yaml; tests are named after Kubernetes' own DNS checks."""

import base64
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.control.client import ask
from testbed.control.questions import APPLY
from tests.e2e.dns_load import QUESTIONS_PER_S, Questions
from tests.e2e.lab import Lab, lab_of
from tests.waiting import constantly, wait_until

SERVICES = "default.svc.cluster.local"
DNS = "10.96.0.10"
WEB = {"web1": "10.0.1.2", "web2": "10.0.2.2", "web3": "10.0.3.2", "web4": "10.0.3.3"}
PODS = {**WEB, "client1": "10.0.1.3", "client2": "10.0.2.3"}
CHANGES = 100
BACK_S = 5.0
"""A killed server answers again by then."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with lab_of(Path(__file__).with_name("services.yaml")) as running:
        yield running


def headless(name: str = "peers") -> dict[str, object]:
    """Return a Service without a cluster IP in front of the four web pods."""
    spec = {
        "clusterIP": "None",
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def web4(label: str) -> dict[str, object]:
    """Return the pod web4 of services.yaml with this label, by which it belongs to the web pods or does not."""
    containers = [{"name": "echo", "image": "echo", "ports": [{"containerPort": 8080, "name": "http"}]}]
    metadata = {"name": "web4", "labels": {"app": label, "pod": "web4"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "node3", "containers": containers},
    }


def apply(lab: Lab, *objects: dict[str, object]) -> None:
    lab.must("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, objects)))


def apply_at_once(lab: Lab, *objects: dict[str, object]) -> None:
    """Apply without a process of its own, whose start takes longer than the change."""
    text = "\n---\n".join(map(json.dumps, objects)).encode()
    contents = [{"name": "test", "data": base64.b64encode(text).decode()}]
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(contents).encode())
        file.flush()
        ask(lab.handle.record, APPLY, (file.fileno(),), None, wait_s=None)


def answers(lab: Lab, asker: str, *questions: str) -> list[list[str]]:
    """Return what each question («NAME TYPE», or «-x ADDRESS») is answered with, sorted."""
    script = "; ".join(f"kdig @{DNS} +short +timeout=5 +retry=0 {one}; echo --" for one in questions)
    said = lab.run(asker, "sh", "-c", script).split("--\n")[:-1]
    return [sorted(part.split("\n")[:-1]) for part in said]


def answer(lab: Lab, asker: str, question: str) -> list[str]:
    return answers(lab, asker, question)[0]


@pytest.mark.row("N23")
def test_dns_for_services_by_short_and_long_names(lab: Lab) -> None:
    names = ["web", "web.default", "web.default.svc", f"web.{SERVICES}", f"web.{SERVICES}."]
    script = "; ".join(f"getent ahostsv4 {name} | head -1" for name in names)
    for asker in ("client1", "web3"):
        found = [line.split()[0] for line in lab.run(asker, "sh", "-c", script).splitlines()]
        assert found == ["10.96.0.20"] * len(names)
    page = lab.run("client2", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do curl -s http://web/hostname; done")
    assert set(page.split()) <= set(WEB)
    assert len(page.split()) == 12


@pytest.mark.row("N23")
@pytest.mark.row("N25")
def test_ports_have_srv_records_by_udp_and_tcp(lab: Lab) -> None:
    question = f"_http._tcp.web.{SERVICES} SRV"
    found = answers(lab, "client1", question, f"{question} +tcp", f"_udp._udp.web.{SERVICES} SRV")
    assert found == [[f"0 100 80 web.{SERVICES}."]] * 3


@pytest.mark.row("N24")
def test_dns_for_pods_by_address_from_pods_and_nodes(lab: Lab) -> None:
    questions = [f"{address.replace('.', '-')}.default.pod.cluster.local A" for address in PODS.values()]
    for asker in ("client1", "web4", "node2"):
        assert answers(lab, asker, *questions) == [[address] for address in PODS.values()]


@pytest.mark.row("N25")
def test_dns_for_headless_services_follows_ready_pods(lab: Lab) -> None:
    apply(lab, headless())
    whole = [f"peers.{SERVICES} A", *(f"{name}.peers.{SERVICES} A" for name in WEB)]
    wait_until(lambda: answer(lab, "client1", whole[0]), timeout_s=20, what="the headless service has a name")
    assert answers(lab, "client1", *whole) == [sorted(WEB.values()), *([address] for address in WEB.values())]
    targets = [f"0 100 8080 {name}.peers.{SERVICES}." for name in WEB]
    assert answers(lab, "client1", f"_http._tcp.peers.{SERVICES} SRV", "-x 10.0.3.3") == [
        sorted(targets),
        [f"web4.peers.{SERVICES}."],
    ]
    apply(lab, web4("elsewhere"))
    fewer = sorted(set(WEB.values()) - {"10.0.3.3"})
    wait_until(lambda: answer(lab, "client1", whole[0]) == fewer, timeout_s=20, what="the pod is no endpoint any more")
    assert answer(lab, "client1", f"web4.peers.{SERVICES} A") == []
    apply(lab, web4("web"))
    lab.must("delete", "service", "peers")
    wait_until(lambda: not answer(lab, "client1", whole[0]), timeout_s=20, what="the name is gone with its service")


def test_unknown_names_do_not_exist_inside_nor_outside(lab: Lab) -> None:
    names = [
        f"nope.{SERVICES}",
        "10-0-9-9.default.pod.cluster.local",
        f"web4.web.{SERVICES}",
        "web.other.svc.cluster.local",
    ]
    outside = ["example.com", "local", "nope.svc.cluster.example"]
    script = "; ".join(f"kdig @{DNS} {name} | grep -o 'status: [A-Z]*'" for name in [*names, *outside])
    said = lab.run("client1", "sh", "-c", script).splitlines()
    assert said == ["status: NXDOMAIN"] * len([*names, *outside])


@pytest.mark.parametrize("name", ["wbe", "web.defalt", "web.default.svc.cluster.locl", "a.b.c.d.e.f.g", "example.com"])
def test_a_misspelt_name_is_not_known_at_once(lab: Lab, name: str) -> None:
    """Not a temporary failure, which is what the C library makes of REFUSED by the last step of the search."""
    script = f"import socket, time; before = time.monotonic()\ntry: socket.getaddrinfo({name!r}, 80)\n"
    script += "except OSError as error: print(error.strerror, time.monotonic() - before < 4)"
    assert lab.run("client1", "python3", "-c", script).strip() == "Name or service not known True"


def test_every_container_has_the_search_list_and_the_host_keeps_its_own_file(lab: Lab) -> None:
    text = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    assert [lab.run(pod, "cat", "/etc/resolv.conf") for pod in ("web1", "client2")] == [text, text]
    assert DNS not in Path("/etc/resolv.conf").read_text(encoding="utf-8")


@pytest.mark.slow
def test_reverse_names_of_services(lab: Lab) -> None:
    found = answers(lab, "client1", "-x 10.96.0.20", f"-x {DNS}", "-x 10.96.0.99")
    assert found == [[f"web.{SERVICES}."], ["kube-dns.kube-system.svc.cluster.local."], []]


@pytest.mark.slow
def test_get_names_shows_what_is_answered(lab: Lab) -> None:
    shown = {
        (one["metadata"]["name"], one["spec"]["type"]): one["spec"]["data"] for one in lab.json("get", "names")["items"]
    }
    assert shown[f"web.{SERVICES}", "A"] == "10.96.0.20"
    assert f"web.{SERVICES}" in lab.must("get", "dns")
    assert lab.json("status")["dns"]["records"] == len(lab.json("get", "names")["items"])


@pytest.mark.slow
def test_resolver_asks_for_both_families_at_once_without_waiting(lab: Lab) -> None:
    # getaddrinfo sends A and AAAA from one port; where a lost one is asked again, that takes it 5 s.
    script = "for i in $(seq 50); do getent ahosts web >/dev/null || echo lost; done"
    assert lab.run("client2", "timeout", "20", "bash", "-c", script) == ""


@pytest.mark.slow
def test_a_hundred_changes_lose_no_question_and_each_is_seen_within_a_second(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    apply(lab, headless())
    questions = Questions(lab, "client1", f"web.{SERVICES}", "10.96.0.20")
    taken = []
    try:
        for number in range(CHANGES // 2):
            # Each time one new Service, and one endpoint that goes or comes back.
            address = f"10.96.1.{number + 1}"
            gone = number % 2 == 0
            endpoints = sorted(set(WEB.values()) - ({"10.0.3.3"} if gone else set()))
            new = headless(f"new{number}")
            new["spec"] = {"clusterIP": address, "selector": {"app": "web"}, "ports": [{"port": 80}]}
            questions.expect(f"new{number}.{SERVICES}", address)
            questions.expect(f"peers.{SERVICES}", *endpoints)
            apply_at_once(lab, new, web4("elsewhere" if gone else "web"))
            first = questions.seconds()
            # Asked for after the first was there.
            taken += [first, first + questions.seconds()]
    finally:
        lab.testbed(
            "delete", "service", "peers", *(f"new{number}" for number in range(CHANGES // 2)), "--ignore-not-found"
        )
        lab.testbed("apply", "-f", "-", stdin=json.dumps(web4("web")))
    outcome = questions.stop()
    p90 = statistics.quantiles(taken, n=10)[-1]
    record_property("seen_p90_s", round(p90, 3))
    record_property("asked", outcome.sent)
    print(
        f"{len(taken)} changes, seen after p50 {statistics.median(taken):.3f} s, p90 {p90:.3f} s; {outcome.sent} asked"
    )
    assert len(taken) == CHANGES
    assert outcome.rate > QUESTIONS_PER_S / 2, f"too slow a stream shows nothing: {outcome.rate:.0f}/s"
    assert outcome.failed == ()
    assert p90 < 1.0


@pytest.mark.slow
def test_a_restarted_server_knows_the_names_added_meanwhile(lab: Lab) -> None:
    before = lab.json("status")["dns"]
    questions = Questions(lab, "client1", f"web.{SERVICES}", "10.96.0.20")
    questions.expect(f"web.{SERVICES}", "10.96.0.20")
    assert questions.seconds() < BACK_S
    with lab.handle.fault("dns kill"):
        apply(lab, headless("meanwhile"))
    try:
        questions.expect(f"meanwhile.{SERVICES}", *WEB.values())
        assert questions.seconds() < BACK_S
        outcome = questions.stop()
        assert outcome.trouble_s < BACK_S
        wait_until(lambda: lab.json("status")["state"] == "ready", timeout_s=BACK_S, what="the lab is ready again")
        after = lab.json("status")["dns"]
        assert (after["healthy"], after["restarts"]) == (True, before["restarts"] + 1)
        assert "the name server exited" in lab.must("events")
    finally:
        lab.must("delete", "service", "meanwhile")


@pytest.mark.slow
def test_a_server_that_is_away_costs_nothing_but_names(lab: Lab) -> None:
    with lab.handle.fault("dns stop"):
        assert lab.exec("client1", "kdig", "+timeout=1", "+retry=0", f"web.{SERVICES}").code != 0
        apply(lab, headless("meanwhile"))
        assert set(lab.run("client1", "curl", "-s", "http://10.96.0.20/hostname").split()) <= set(WEB)
    question = f"meanwhile.{SERVICES} A"
    wait_until(lambda: len(answer(lab, "client1", question)) == len(WEB), timeout_s=BACK_S, what="its names are there")
    lab.must("delete", "service", "meanwhile")
    wait_until(lambda: lab.json("status")["state"] == "ready", timeout_s=BACK_S, what="all is well again")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_shown(lab: Lab) -> None:
    with lab.handle.fault("dns pause"):
        assert (lab.json("status")["state"], lab.json("status")["dns"]["healthy"]) == ("degraded", False)
        assert f"dns: {DNS} does not answer" in lab.must("status")
    wait_until(lambda: lab.json("status")["state"] == "ready", timeout_s=BACK_S, what="it answers again")


@pytest.mark.slow
def test_a_zone_that_cannot_be_written_is_reported_and_written_later(lab: Lab) -> None:
    zone = Path(f"/proc/{lab.json('status')['pid']}/root/run/dns/cluster.local.zone")

    def reasons() -> list[str]:
        return [event["reason"] for event in lab.handle.events()]

    before = reasons().count("NamesNotPublished")
    zone.unlink()
    zone.mkdir()  # no file can replace it
    try:
        apply(lab, headless("late"))
        wait_until(lambda: reasons().count("NamesNotPublished") > before, timeout_s=10, what="an event")
        constantly(lambda: reasons().count("NamesNotPublished") == before + 1, for_s=3, what="one event")
    finally:
        zone.rmdir()
    try:
        wait_until(
            lambda: answer(lab, "client1", f"late.{SERVICES} A") == sorted(WEB.values()), timeout_s=10, what="the name"
        )
    finally:
        lab.must("delete", "service", "late")


def test_a_lab_without_dns_has_no_names(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    file.write_text(
        "apiVersion: testbed/v1\nkind: Cluster\nmetadata: {name: none}\nnetwork: {Network: 10.0.0.0/16}\n"
        "underlay: {cidr: 192.168.8.0/24}\ndns: false\nnodes: {node1: {}}\n---\napiVersion: v1\nkind: Pod\n"
        "metadata: {name: one}\nspec: {containers: [{name: shell, image: shell}]}\n"
    )
    with lab_of(file) as lab:
        assert lab.json("status")["dns"] is None
        assert lab.run("one", "cat", "/etc/resolv.conf") == ""
        assert lab.must("get", "names") == "no names\n"
        assert lab.exec("one", "getent", "hosts", "web").code != 0
