"""Two namespaces with equal names of everything keep apart: names, Services, logs, traces, events, deletion.

All tests share one lab; `shop` and `bank` have the same objects, and no test removes any of these.
"""

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from testbed.cluster.kinds import MANIFESTS
from testbed.pytest_plugin import NewLab
from testbed.testing.bundle import write_bundle
from tests.e2e.command import read_until
from tests.e2e.lab import Lab
from tests.waiting import wait_until

HEAD = "nodes: {node1: {}, node2: {}}\n"
OBJECTS = """\
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: NAMESPACE}
spec:
  nodeName: node1
  containers:
    - name: c
      image: shell
      env: [{name: WHERE, valueFrom: {configMapKeyRef: {name: settings, key: where}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NAMESPACE}
data: {where: NAMESPACE}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: NAMESPACE, labels: {app: web}}
spec:
  nodeName: node2
  containers:
    - name: c
      image: shell
      command: [sh, -c]
      args: ["echo I am NAMESPACE; mkdir /tmp/w; echo NAMESPACE >/tmp/w/name; python3 -m http.server -d /tmp/w 8080"]
      readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: NAMESPACE}
spec: {clusterIP: None, selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: api}}
  template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: echo}]}}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE, labels: {of: NAMESPACE}}
"""
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "third"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]}],
    },
}
BOTH = ("shop", "bank")


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("cluster") / "namespaces.yaml"
    Path(file).write_text(HEAD + "".join(OBJECTS.replace("NAMESPACE", one) for one in BOTH), encoding="utf-8")
    with new_lab(file) as handle:
        yield Lab(handle.name)


def items(lab: Lab, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.must("get", *words, "-o", "json"))["items"]
    return found


def names(lab: Lab, *words: str) -> list[str]:
    return sorted(item["metadata"]["name"] for item in items(lab, *words))


def namespaces(lab: Lab) -> list[str]:
    return [item["metadata"]["name"] for item in items(lab, "namespaces")]


def phase(lab: Lab, namespace: str) -> str:
    found: str = json.loads(lab.must("get", "ns", namespace, "-o", "json"))["status"]["phase"]
    return found


def address(lab: Lab, pod: str, namespace: str) -> str:
    found: str = json.loads(lab.must("get", "pod", pod, "-n", namespace, "-o", "json"))["status"]["podIP"]
    return found


def test_get_shows_the_default_namespace_or_the_one_that_is_named_or_all(lab: Lab) -> None:
    assert items(lab, "pods") == []
    assert lab.must("get", "pods") == "no pods in namespace default (8 in others: get -A)\n"
    assert lab.must("get", "pods", "-n", "kube-system") == "no pods in namespace kube-system (8 in others: get -A)\n"
    assert names(lab, "pods", "-n=shop") == names(lab, "pods", "-n", "shop")
    for one in BOTH:
        assert len(names(lab, "pods", "-n", one)) == 4
        assert names(lab, "services", "-n", one) == ["api", "web"]
        assert {item["metadata"]["namespace"] for item in items(lab, "all", "-n", one) if item["kind"] != "Node"} == {
            one
        }
    assert len(items(lab, "pods", "-A")) == 8
    heading, *rows = lab.must("get", "deploy", "-A").splitlines()
    assert heading.split()[:2] == ["NAMESPACE", "DEPLOYMENT"]
    assert sorted(row.split()[:2] for row in rows) == [["bank", "api"], ["shop", "api"]]
    wrong = lab.testbed("get", "pods", "-n", "shpo")
    assert (wrong.code, wrong.err) == (
        1,
        "error: no namespace named shpo (there are: default, kube-system, shop, bank)\n",
    )


def test_namespaces_have_their_labels_and_the_one_with_their_name(lab: Lab) -> None:
    found = {item["metadata"]["name"]: item["metadata"]["labels"] for item in items(lab, "ns")}
    assert found == {
        "default": {"kubernetes.io/metadata.name": "default"},
        "kube-system": {"kubernetes.io/metadata.name": "kube-system"},
        "shop": {"kubernetes.io/metadata.name": "shop", "of": "shop"},
        "bank": {"kubernetes.io/metadata.name": "bank", "of": "bank"},
    }
    said = lab.must("describe", "ns", "shop")
    assert "of:" in said
    assert "Deployment:  1" in said


def test_a_name_means_the_service_of_the_own_namespace_and_with_a_namespace_the_other(lab: Lab) -> None:
    for own, other in (BOTH, BOTH[::-1]):
        for name, expected in (
            ("web", own),
            (f"web.{own}", own),
            (f"web.{other}", other),
            (f"web.{other}.svc", other),
            (f"web.{other}.svc.cluster.local", other),
        ):
            said = lab.must("exec", "-n", own, "client", "--", "curl", "-sS", f"http://{name}/name")
            assert (name, said) == (name, f"{expected}\n")
        assert lab.must("exec", "-n", own, "client", "--", "hostname") == "client\n"
        assert lab.must("exec", "-n", own, "client", "--", "printenv", "WHERE") == f"{own}\n"
        search = lab.must("exec", "-n", own, "client", "--", "cat", "/etc/resolv.conf").splitlines()[0]
        assert search == f"search {own}.svc.cluster.local svc.cluster.local cluster.local"


def test_a_service_leads_to_pods_of_its_own_namespace_alone(lab: Lab) -> None:
    for one in BOTH:
        own = {address(lab, pod, one) for pod in names(lab, "pods", "-n", one, "-l", "app=api")}
        endpoints = json.loads(lab.must("get", "endpoints", "api", "-n", one, "-o", "json"))
        behind = {found["ip"] for subset in endpoints["subsets"] for found in subset["addresses"]}
        resolved = lab.must("exec", "-n", one, "client", "--", "getent", "ahostsv4", "api").splitlines()
        assert own == behind == {line.split()[0] for line in resolved}
        assert len(own) == 2


def test_logs_and_exec_are_those_of_the_pod_of_the_namespace(lab: Lab) -> None:
    for one in BOTH:
        assert f"I am {one}" in lab.must("logs", "-n", one, "web")
        assert f"I am {one}" in lab.must("logs", f"{one}/web")
        assert lab.must("exec", f"{one}/web", "--", "cat", "/tmp/w/name") == f"{one}\n"
        assert lab.must("exec", "-n", one, "pod/web", "--", "cat", "/tmp/w/name") == f"{one}\n"
        assert lab.must("exec", "-n", one, "deploy/api", "--", "hostname").startswith("api-")
    nowhere = lab.testbed("exec", "web", "--", "true")
    assert (nowhere.code, nowhere.err.startswith("error: no pod or node named web (")) == (1, True)
    # A node is in no namespace.
    assert "node1-eth0" in lab.must("exec", "-n", "shop", "node1", "--", "ip", "link")


def test_a_trace_goes_to_the_pod_or_service_of_the_namespace(lab: Lab) -> None:
    for own, other in (BOTH, BOTH[::-1]):
        for destination, namespace in (("web:8080", own), (f"{other}/web:8080", other)):
            traced = lab.json("trace", "-n", own, "client", destination)
            assert (traced["outcome"], traced["probe"]["from"]) == ("answered", f"{own}/client")
            assert traced["probe"]["to"] == f"{namespace}/web"
            assert traced["probe"]["destination"] == address(lab, "web", namespace)
        service = json.loads(lab.must("get", "svc", "web", "-n", other, "-o", "json"))["spec"]["clusterIP"]
        traced = lab.json("trace", "-n", own, "client", f"svc/{other}/web:80")
        assert (traced["outcome"], traced["probe"]["destination"]) == ("answered", service)
        assert {f"{own}/client", f"{other}/web"} <= {hop["node"] for hop in traced["hops"]}
        assert any(f"service {other}/web" in json.dumps(hop) for hop in traced["hops"])
        assert lab.json("trace", "-n", own, "client", "svc/web:80")["probe"]["destination"] != service
    assert "no pod or node named web" in lab.testbed("trace", "web", "node1").err


def test_pings_are_of_all_pods_or_of_a_namespace_or_between_two(lab: Lab) -> None:
    assert len(lab.json("ping")) == 8 * 7
    pairs = lab.json("ping", "-n", "bank")
    assert len(pairs) == 4 * 3
    assert {end.partition("/")[0] for pair in pairs for end in (pair["source"], pair["destination"])} == {"bank"}
    (pair,) = lab.json("ping", "-n", "shop", "client", "bank/client", "-c", "2")
    assert (pair["source"], pair["destination"], pair["received"]) == ("shop/client", "bank/client", 2)
    assert pair["address"] == address(lab, "client", "bank")
    assert lab.testbed("ping", "-n", "5").err.startswith("error: no namespace named 5 (there are: default, ")


def test_a_capture_listens_at_the_pod_of_the_namespace_alone(lab: Lab) -> None:
    for own, other in (BOTH, BOTH[::-1]):
        with lab.running("capture", "-n", own, "web", "icmp", "-c", "2") as capture:
            read_until(capture.stderr, "capturing on")
            lab.must("ping", "-n", other, "client", "web")
            lab.must("ping", "-n", own, "client", "web")
            text = capture.communicate(timeout=60)[0].decode()
        assert text.count(f"{own}/web:eth0") == 2, text
        assert address(lab, "web", own) in text
        assert address(lab, "web", other) not in text
    wrong = lab.testbed("capture", "-n", "shop", "nothing", "icmp")
    assert (wrong.code, "no such point (got nothing; want all, or some of bank/api" in wrong.err) == (1, True), (
        wrong.err
    )


def test_a_forwarded_port_leads_to_the_service_or_pod_of_the_namespace(lab: Lab) -> None:
    for own, other in (BOTH, BOTH[::-1]):
        for words, namespace in (
            (("svc/web", "0:80"), own),
            (("pod/web", "0:8080"), own),
            ((f"{other}/web", "0:80"), other),
            ((f"svc/{other}/web", "0:http"), other),
        ):
            with lab.running("forward", "-n", own, *words) as verb:
                shown = read_until(verb.stdout, r"127\.0\.0\.1:(\d+) -> ")
                port = int(shown.partition("127.0.0.1:")[2].split()[0])
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/name", timeout=10) as answer:
                    assert (words, answer.read().decode()) == (words, f"{namespace}\n")
                verb.send_signal(signal.SIGINT)
                assert verb.wait(30) == 0
    assert "no service named web (there are: " in lab.testbed("forward", "svc/web", "0:80").err


def test_events_name_their_object_with_its_namespace_and_can_be_those_of_one(lab: Lab) -> None:
    everything = {event["object"] for event in lab.handle.events()}
    assert {f"pod/{one}/web" for one in BOTH} <= everything
    assert "node/node1" in everything
    rows = lab.must("events", "-n", "shop").splitlines()[1:]
    assert len(rows) >= 4
    assert all("/shop/" in row.split()[2] for row in rows)
    shapes = items(lab, "events", "-n", "shop")
    assert {shape["involvedObject"]["namespace"] for shape in shapes} == {"shop"}
    assert "Started" in lab.must("describe", "pod", "web", "-n", "bank")
    assert "testbed get pods -l app=api -n shop" in lab.must("describe", "deploy", "api", "-n", "shop")
    assert "testbed exec bank/" in lab.must("describe", "svc", "web", "-n", "bank")


def test_pictures_checks_and_faults_know_both(lab: Lab) -> None:
    drawn = lab.must("graph")
    for one in BOTH:
        assert f"{one}/web" in drawn
    facts = lab.json("graph")
    assert sorted(service["name"] for service in facts["services"]) == ["bank/api", "bank/web", "shop/api", "shop/web"]
    links = [pod["host_end"] for pod in facts["pods"]]
    assert len(set(links)) == len(links) == 8
    checked = lab.testbed("check")
    assert checked.code == 0, str(checked)
    before = address(lab, "client", "shop")
    pause = lab.handle.describe("pods", "bank/client")["Pause process"]
    lab.must("fault", "pod", "kill", "bank/client")

    def is_back() -> bool:
        pod = lab.handle.describe("pods", "bank/client")
        return bool(pod["Ready"]) and pod["Pause process"] != pause

    wait_until(is_back, timeout_s=40, what="the pod whose sandbox was killed is ready again")
    assert address(lab, "client", "shop") == before


def test_the_page_shows_and_traces_both(lab: Lab) -> None:
    with lab.running("ui") as server:
        (url,) = re.findall(r"http://\S+", read_until(server.stdout, r"http://127\.0\.0\.1:\d+/\S+/\n"))

        def asked(what: str, **body: str) -> dict[str, Any]:
            headers = {"Content-Type": "application/json", "Origin": f"http://{urlsplit(url).netloc}"}
            request = urllib.request.Request(url + what, json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=20) as answer:
                found: dict[str, Any] = json.load(answer)
                return found

        for own, other in (BOTH, BOTH[::-1]):
            rows = asked("facts", kind="pod", name=f"{own}/web")["rows"]
            assert ["address", address(lab, "web", own)] in rows
            assert ["route", "default via"] in [[heading, value[:11]] for heading, value in rows]
            assert ["ready pods", "1"] in asked("facts", kind="service", name=f"{own}/web")["rows"]
            traced = asked("trace", source=f"{own}/client", destination=f"svc/{other}/web:80")["trace"]
            assert traced["outcome"] == "answered"
            assert {f"{own}/client", f"{other}/web"} <= {hop["node"] for hop in traced["hops"]}


def test_a_bundle_has_files_of_both_and_no_findings(lab: Lab, tmp_path: Path) -> None:
    bundle = write_bundle(lab.handle, tmp_path, title="namespaces")
    assert (bundle.findings, bundle.problems) == ((), ())
    for one in BOTH:
        assert f"I am {one}" in (tmp_path / "pods" / f"{one}_web" / "c.log").read_text()
        assert address(lab, "web", one) in (tmp_path / "pods" / f"{one}_web" / "addresses.txt").read_text()
        assert json.loads((tmp_path / "pods" / f"{one}_web" / "describe.json").read_text())["Name"] == f"{one}/web"


def test_apply_puts_objects_into_the_namespace_of_the_command_line_and_refuses_another(lab: Lab) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "later"}}
    pod["spec"] = {"containers": [{"name": "c", "image": "shell"}]}
    try:
        done = lab.testbed("apply", "-f", "-", "-n", "shop", "--wait", stdin=json.dumps(pod))
        assert done.out.splitlines()[0] == "pod/shop/later created", str(done)
        assert "get all -o wide -n shop" in done.out
        assert "later" in names(lab, "pods", "-n", "shop")
    finally:
        assert lab.must("delete", "pod", "later", "-n", "shop", "--grace-period", "0") == "pod/shop/later deleted\n"
    pod["metadata"] = {"name": "later", "namespace": "bank"}
    refused = lab.testbed("apply", "-f", "-", "-n", "shop", stdin=json.dumps(pod))
    assert refused.code == 2
    assert "the object's namespace is not the one of the command line (got bank; want shop, or -n bank)" in refused.err
    assert lab.testbed("delete", "-f", "-", "-n", "shop", stdin=json.dumps(pod)).code == 2
    pod["metadata"] = {"name": "later", "namespace": "nowhere"}
    missing = lab.testbed("apply", "-f", "-", stdin=json.dumps(pod))
    assert (missing.code, "no such namespace (got nowhere; want default, kube-system, shop, bank;" in missing.err) == (
        2,
        True,
    )


def test_scale_and_delete_change_one_namespace_and_not_the_other(lab: Lab) -> None:
    before = {pod: address(lab, pod, "bank") for pod in names(lab, "pods", "-n", "bank")}
    assert lab.must("scale", "deployment", "api", "-n", "shop", "--replicas", "3", "--wait").startswith(
        "deployment/shop/api scaled from 2 to 3"
    )
    lab.must("scale", "deployment", "api", "-n", "shop", "--replicas", "2", "--wait")
    wait_until(lambda: len(names(lab, "pods", "-n", "shop")) == 4, timeout_s=40, what="the third pod is gone")
    assert {pod: address(lab, pod, "bank") for pod in names(lab, "pods", "-n", "bank")} == before


def test_deleting_a_namespace_removes_everything_in_it_and_nothing_else(lab: Lab) -> None:
    before = [item["metadata"]["uid"] for one in BOTH for item in items(lab, "pods", "-n", one)]
    third = OBJECTS.replace("NAMESPACE", "third") + f"---\n{json.dumps(POLICY)}\n"
    applied = lab.testbed("apply", "-f", "-", "--wait", stdin=third)
    assert applied.code == 0, str(applied)
    assert len(items(lab, "pods", "-n", "third")) == 4
    asked = ("exec", "-n", "shop", "client", "--", "curl", "-sS", "-m5", "http://web.third/name")
    wait_until(lambda: lab.testbed(*asked).out == "third\n", timeout_s=30, what="the new namespace's service answers")
    with lab.running("delete", "ns", "third", "--grace-period", "8") as deletion:
        wait_until(lambda: phase(lab, "third") == "Terminating", timeout_s=20, what="the namespace is being deleted")
        refused = lab.testbed("apply", "-f", "-", stdin=json.dumps(POLICY))
        assert (refused.code, "this namespace is being deleted (got third;" in refused.err) == (2, True), str(refused)
        assert deletion.wait(60) == 0
    # Everything that can be applied, of whatever kind.
    assert namespaces(lab) == ["default", "kube-system", *BOTH]
    inside = [kind.plural for kind in MANIFESTS.values() if kind.namespaced]
    everything = items(lab, ",".join([*inside, "endpoints"]), "-A")
    assert {item["metadata"]["namespace"] for item in everything} == set(BOTH)
    assert "NetworkPolicy" not in {item["kind"] for item in everything}
    gone = lab.testbed("exec", "-n", "shop", "client", "--", "getent", "hosts", "web.third.svc.cluster.local")
    assert (gone.code, gone.out) == (2, "")
    assert "I am third" in lab.must("logs", "-n", "third", "web")
    assert [item["metadata"]["uid"] for one in BOTH for item in items(lab, "pods", "-n", one)] == before
    wait_until(lambda: lab.handle.status()["state"] == "ready", timeout_s=40, what="the lab is ready without it")


def test_the_namespaces_of_every_lab_are_kept(lab: Lab) -> None:
    for one in ("default", "kube-system"):
        refused = lab.testbed("delete", "namespace", one)
        assert (refused.code, refused.err) == (1, f"error: namespace {one} cannot be deleted: every lab has it\n")
    missing = lab.testbed("delete", "namespace", "never")
    assert (missing.code, missing.err) == (1, "error: no namespace named never\n")
