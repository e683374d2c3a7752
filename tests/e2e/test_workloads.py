"""Workloads in a running lab: applied, changed, scaled, removed; nodes that come, are drained and go; forwarded ports.

All tests share one lab of three nodes. Each applies what it needs under names of its own and removes it again.
"""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from testbed.control.questions import CHECK
from testbed.pytest_plugin import NewLab
from testbed.testing.bundle import write_bundle
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.invariants import Baseline, broken
from tests.e2e.command import Answer, read_until
from tests.e2e.lab import Lab
from tests.waiting import wait_until

CLUSTER = Path(__file__).with_name("workloads.yaml")
NODES = ["node1", "node2", "node3"]


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab) -> Iterator[Lab]:
    with new_lab(CLUSTER) as handle:
        yield Lab(handle.name)


def pod(name: str, **spec: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a manifest
    container = {"name": "echo", "image": "echo", "ports": [{"containerPort": 8080, "name": "http"}]}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}}
    return {**document, "spec": {"containers": [container], **spec}}


def deployment(name: str, replicas: int | None, **container: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a manifest
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod(name)["spec"]}
    template["spec"]["containers"][0] |= container
    spec = {"selector": {"matchLabels": labels}, "template": template}
    more = {} if replicas is None else {"replicas": replicas}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {**spec, **more}}


def apply(lab: Lab, *documents: dict[str, Any], wait: bool = True) -> Answer:
    """Run `apply -f -`; JSON is YAML."""
    stream = "\n---\n".join(json.dumps(document) for document in documents)
    return lab.testbed("apply", "-f", "-", *(["--wait"] if wait else []), stdin=stream)


def pods_of(lab: Lab, app: str) -> list[dict[str, Any]]:
    """Return the pods with this label that are not ending."""
    items = json.loads(lab.must("get", "pods", "-l", f"app={app}", "-o", "json"))["items"]
    return [item for item in items if "deletionTimestamp" not in item["metadata"]]


def nodes_of(lab: Lab, app: str) -> list[str]:
    return sorted(item["spec"]["nodeName"] for item in pods_of(lab, app))


def reasons(lab: Lab, thing: str) -> list[str]:
    return [event["reason"] for event in lab.handle.events() if event["object"] == thing]


@pytest.mark.slow
def test_applying_twice_changes_once_and_says_so(lab: Lab) -> None:
    assert apply(lab, pod("twice"), deployment("both", 1)).out.startswith(
        "pod/twice created\ndeployment/both created\n"
    )
    before = pods_of(lab, "twice"), pods_of(lab, "both")
    assert apply(lab, pod("twice"), deployment("both", 1)).out.startswith("pod/twice unchanged\ndeployment/both unchan")
    assert (pods_of(lab, "twice"), pods_of(lab, "both")) == before
    assert lab.must("delete", "pod", "twice") == "pod/twice deleted\n"
    assert lab.must("delete", "deployment/both") == "deployment/both deleted\n"
    assert lab.testbed("get", "pods", "twice").code == 1


@pytest.mark.slow
def test_new_labels_restart_nothing_and_a_new_spec_rebuilds_the_pod_with_its_address(lab: Lab) -> None:
    apply(lab, pod("changing", nodeName="node2"))
    (before,) = pods_of(lab, "changing")
    renamed = pod("changing", nodeName="node2")
    renamed["metadata"]["labels"]["tier"] = "front"
    assert "pod/changing configured" in apply(lab, renamed).out
    (relabelled,) = pods_of(lab, "changing")
    assert relabelled["metadata"]["labels"] == {"app": "changing", "tier": "front"}
    assert relabelled["status"]["startTime"] == before["status"]["startTime"]
    assert "pod/changing configured" in apply(lab, pod("changing", nodeName="node2", hostname="other")).out
    assert lab.run("changing", "hostname") == "other\n"
    (after,) = pods_of(lab, "changing")
    assert after["status"]["podIP"] == before["status"]["podIP"]
    lab.must("delete", "pod", "changing")


def test_a_wrong_file_changes_nothing_and_every_mistake_is_reported_with_its_line(lab: Lab) -> None:
    wrong = """\
apiVersion: v1
kind: Pod
metadata: {name: good}
spec: {containers: [{name: a, image: shell}]}
---
apiVersion: v1
kind: Pod
metadata: {name: node2}
spec:
  nodeName: node9
  hostNetwrk: true
  containers:
    - {name: a, image: nope, ports: [{containerPort: 70000}], volumeMounts: [{name: v, mountPath: /v}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {replicas: many, selector: {matchLabels: {app: web}}, template: {spec: {containers: [{name: a, image: echo}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: good}
spec: {containers: [{name: a, image: shell}]}
"""
    before = lab.json("get", "all")
    answer = lab.testbed("apply", "-f", "-", stdin=wrong)
    assert answer.code == 2
    found = [(int(line.split(":")[2]), line.split(": ")[2]) for line in answer.err.splitlines()]
    assert found == [
        (8, "metadata.name"),
        (10, "spec.nodeName"),
        (11, "spec.hostNetwrk"),
        (13, "spec.containers[0].image"),
        (13, "spec.containers[0].ports[0].containerPort"),
        (13, "spec.containers[0].volumeMounts[0].name"),
        (18, "spec.replicas"),
        (18, "spec.selector.matchLabels.app"),
        (22, "metadata.name"),
    ]
    after = lab.json("get", "all")
    names = [[item["metadata"]["name"] for item in one["items"]] for one in (before, after)]
    assert names[0] == names[1]


@pytest.mark.slow
def test_replicas_are_spread_and_scaling_keeps_them_spread(lab: Lab) -> None:
    apply(lab, deployment("spread", 3))
    assert nodes_of(lab, "spread") == NODES
    assert lab.must("scale", "deployment", "spread", "--replicas", "6", "--wait").endswith("scaled from 3 to 6\n")
    assert nodes_of(lab, "spread") == sorted(2 * NODES)
    assert "unchanged" in apply(lab, deployment("spread", None)).out, "a file without replicas keeps what was scaled"
    lab.must("scale", "deploy/spread", "--replicas", "2", "--wait")
    assert len(set(nodes_of(lab, "spread"))) == 2
    lab.must("delete", "deployment", "spread")


@pytest.mark.slow
def test_a_deleted_pod_of_a_deployment_is_replaced_and_a_crashed_one_restarted(lab: Lab) -> None:
    apply(lab, deployment("steady", 2))
    first, second = pods_of(lab, "steady")
    lab.must("delete", "pod", first["metadata"]["name"])
    wait_until(lambda: len(pods_of(lab, "steady")) == 2, timeout_s=10, what="two pods again")
    names = {item["metadata"]["name"] for item in pods_of(lab, "steady")}
    assert first["metadata"]["name"] not in names
    assert second["metadata"]["name"] in names
    (pid,) = second["testbed"]["pids"].values()
    lab.kill_9(pid)
    name = second["metadata"]["name"]
    wait_until(lambda: lab.pod(name)["restarts"] == 1 and lab.pod(name)["ready"], timeout_s=10, what="restarted")
    lab.must("delete", "deployment", "steady")


@pytest.mark.slow
def test_a_new_template_replaces_every_pod(lab: Lab) -> None:
    apply(lab, deployment("rolling", 3))
    before = {item["metadata"]["name"] for item in pods_of(lab, "rolling")}
    apply(lab, deployment("rolling", 3, env=[{"name": "COLOUR", "value": "green"}]))
    after = pods_of(lab, "rolling")
    assert len(after) == 3
    assert before.isdisjoint(item["metadata"]["name"] for item in after)
    assert lab.run(after[0]["metadata"]["name"], "sh", "-c", "echo $COLOUR") == "green\n"
    lab.must("delete", "deployment", "rolling")


def test_every_pair_of_pods_answers_beside_scaling_and_rolling_changes(lab: Lab) -> None:
    apply(lab, deployment("turning", 3))

    def turn() -> None:
        for colour in range(3):
            for replicas in ("7", "2"):
                lab.must("scale", "deployment", "turning", "--replicas", replicas, "--wait")
            apply(lab, deployment("turning", None, env=[{"name": "COLOUR", "value": str(colour)}]))

    def pings() -> int:
        count = 0
        while not turning.done():
            assert not [ping for ping in lab.handle.ping_all() if ping.lost]
            count += 1
        return count

    def checks() -> int:
        count = 0
        while not turning.done():
            pairs = [one for one in lab.handle.ask(CHECK)["checks"] if one["check"].startswith("every pair")]
            assert all(one["holds"] for one in pairs), pairs
            count += 1
        return count

    before = Baseline.of(lab.handle)
    with Heartbeats(lab.handle) as heartbeats, ThreadPoolExecutor(3) as workers:
        heartbeats.wait_steady(30)
        turning = workers.submit(turn)
        pinging, checking = workers.submit(pings), workers.submit(checks)
        turning.result()
        # Each round takes a second or more on a busy machine.
        assert pinging.result() > 5
        assert checking.result() > 1
        heartbeats.wait_steady(30)
    wait_until(lambda: not broken(lab.handle, before), timeout_s=40, what=f"{broken(lab.handle, before)}")
    answer = lab.testbed("ping")
    assert (answer.code, "0 lost" in answer.out) == (0, True)
    lab.must("delete", "deployment", "turning")


def test_apply_wait_tells_what_is_missing(lab: Lab) -> None:
    never = {"exec": {"command": ["false"]}}
    stream = json.dumps(deployment("never", 1, readinessProbe=never))
    answer = lab.testbed("apply", "-f", "-", "--wait", "--timeout", "10", stdin=stream)
    assert answer.code == 1
    assert "deployment/never: 0 of 1 pods are ready" in answer.err
    assert "is not ready by its readiness probe" in answer.err
    lab.must("delete", "deployment", "never", "--grace-period", "0")


def test_a_missing_object_cannot_be_deleted_or_scaled(lab: Lab) -> None:
    missing = lab.testbed("delete", "pod", "nobody", "client-not")
    assert (missing.code, missing.err) == (1, "error: no pod named nobody\nerror: no pod named client-not\n")
    assert lab.testbed("delete", "pod", "nobody", "--ignore-not-found").code == 0
    assert "no deployment named nobody" in lab.testbed("scale", "deploy", "nobody", "--replicas", "1").err
    assert lab.testbed("delete", "statefulset", "a").code == 2


def test_describe_says_what_a_deployment_is_and_what_happened_to_it(lab: Lab) -> None:
    apply(lab, deployment("told", 2))
    shown = lab.json("describe", "deployment", "told")
    assert shown["Replicas"] == "2 desired, 2 current, 2 updated, 2 ready, 2 available"
    assert sum("ScalingReplicaSet" in line for line in shown["Events"]) == 1
    ((name, of_set),) = shown["ReplicaSets"].items()
    assert of_set == "revision 1, 2 desired"
    owned = lab.json("describe", "pod", next(iter(shown["Pods"])))
    assert owned["Controlled by"] == f"replicaset/{name}"
    made = lab.json("describe", "rs", name)
    assert made["Controlled by"] == "deployment/told, revision 1"
    assert sum("SuccessfulCreate" in line for line in made["Events"]) == 2
    lab.must("delete", "deployment", "told")


@pytest.mark.slow
def test_a_pod_with_the_nodes_network_answers_at_the_nodes_address(lab: Lab) -> None:
    apply(lab, pod("on-host", nodeName="node3", hostNetwork=True))
    address = lab.node("node3")["address"]
    assert lab.pod("on-host")["address"] == address
    assert lab.run("client", "curl", "-s", f"http://{address}:8080/hostname") == "node3\n"
    assert apply(lab, *(pod(name, hostNetwork=True) for name in ("second", "third"))).code == 0
    assert sorted(lab.pod(name)["node"] for name in ("second", "third")) == ["node1", "node2"], "the port is taken"
    refused = apply(lab, pod("fourth", hostNetwork=True))
    assert refused.code == 2
    assert "no node takes this pod (got node1 has host port 8080/TCP taken; node2" in refused.err
    lab.must("delete", "pod", "on-host", "second", "third")


@pytest.mark.slow
def test_a_node_comes_takes_pods_and_goes(lab: Lab) -> None:
    lab.must("node", "add", "node4", "--ip", "192.168.8.77")
    assert lab.node("node4")["address"] == "192.168.8.77"
    assert [node["peers"] for node in lab.json("status")["nodes"]] == [{"known": 3, "expected": 3}] * 4
    apply(lab, pod("there", nodeName="node4"), deployment("moving", 4))
    assert nodes_of(lab, "moving") == [*NODES, "node4"]
    assert lab.pings("client", lab.pod("there")["address"])
    drained = lab.testbed("node", "drain", "node4")
    assert (drained.code, "stay: there" in drained.err) == (0, True)
    assert set(nodes_of(lab, "moving")) == set(NODES)
    assert lab.testbed("get", "nodes", "node4").out.count("ready, drained") == 1
    agent = lab.node("node4")["agent"]["pid"]
    deleted = lab.testbed("node", "delete", "node4")
    assert (deleted.code, "were deleted with it: there" in deleted.err) == (0, True)
    assert [node["peers"] for node in lab.json("status")["nodes"]] == [{"known": 2, "expected": 2}] * 3
    assert lab.exec("node1", "kill", "-0", str(agent)).code != 0, "its agent lives on"
    assert "192.168.8.77" not in lab.run("node1", "ip", "neigh")
    assert "192.168.8.77" not in lab.must("get", "leases")
    assert "NodeDeleted" in reasons(lab, "pod/there")
    assert "ServicesNotProgrammed" not in reasons(lab, "node/node4")
    lab.must("delete", "deployment", "moving")


def test_a_node_that_cannot_be_added_leaves_nothing_and_is_added_later(own_lab: Lab) -> None:
    own_lab.must("fault", "etcd", "stop", "etcd1")
    failed = own_lab.testbed("node", "add", "node3")
    assert failed.code == 4, failed
    own_lab.must("fault", "heal")
    assert [node["name"] for node in own_lab.json("status")["nodes"]] == ["node1", "node2"]
    assert "no node named node3" in own_lab.testbed("node", "delete", "node3").err
    own_lab.must("node", "add", "node3")
    assert own_lab.node("node3")["agent"]["state"] == "ready"
    own_lab.must("node", "delete", "node3")
    own_lab.must("node", "add", "node4")
    assert own_lab.pings("node4", own_lab.node("node1")["address"])


def test_a_node_that_cannot_be_is_refused_with_all_reasons(lab: Lab) -> None:
    answer = lab.testbed("node", "add", "client", "--ip", "10.9.9.9", "--switch", "s1")
    assert answer.code == 2
    assert "a pod has this name" in answer.err
    assert "not a host's address on s1 (got 10.9.9.9; want one inside 192.168.8.0/24)" in answer.err
    assert "the address of node2" in lab.testbed("node", "add", "node7", "--ip", lab.node("node2")["address"]).err


def get(port: int, path: str = "/hostname") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return str(answer.read().decode())


def test_a_forwarded_port_leads_into_the_lab_and_ends_with_its_verb(lab: Lab) -> None:
    apply(lab, pod("page", nodeName="node2"))
    with lab.running("forward", "page", "0:http") as verb:
        shown = read_until(verb.stdout, r"127\.0\.0\.1:(\d+) -> pod page")
        port = int(shown.partition("127.0.0.1:")[2].split()[0])
        wait_until(lambda: get(port) == "page\n", timeout_s=20, what="the pod answers on this machine")
        body = os.urandom(300_000).hex().encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/echo", data=body)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.read() == body
        verb.send_signal(signal.SIGINT)
        assert verb.wait(30) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    lab.must("delete", "pod", "page")


def test_no_process_of_the_host_holds_a_socket_of_the_lab_during_a_forward(lab: Lab) -> None:
    apply(lab, pod("page", nodeName="node2"))
    with lab.running("forward", "pod/page", ":8080") as verb:
        port = int(read_until(verb.stdout, r"127\.0\.0\.1:\d+ ").partition("127.0.0.1:")[2].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as kept:
            kept.sendall(b"GET /hostname HTTP/1.1\r\n\r\n")
            assert kept.recv(100).startswith(b"HTTP/1.1 200")
            # Our own tables show every socket of this namespace; the client's are the listener and nothing else.
            inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
            held = {
                target.removeprefix("socket:[").removesuffix("]")
                for target in links_of(verb.pid)
                if target.startswith("socket:[")
            }
            of_unix = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
            assert held <= inodes | of_unix
            assert len(held & inodes) == 1
    lab.must("delete", "pod", "page")


def test_a_forward_that_cannot_be_says_why(lab: Lab) -> None:
    assert "no service, pod or node named nobody" in lab.testbed("forward", "0:nobody:80").err
    assert lab.testbed("forward", "nonsense").code == 2
    assert "no such port (got http" in lab.testbed("forward", "client", "0:http").err
    for words in (("client", "x:80"), ("client", "80:"), ("client", "70000:80"), ("pod/", "80"), ("client",)):
        assert lab.testbed("forward", *words).code == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = lab.testbed("forward", f"{taken.getsockname()[1]}:client:80")
        assert (answer.code, "Address already in use" in answer.err) == (3, True)


def test_a_service_whose_selector_matches_nothing_is_warned_of_and_one_beside_its_deployment_is_not(lab: Lab) -> None:
    service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}}
    service["spec"] = {"selector": {"app": "front"}, "ports": [{"port": 80, "targetPort": "http"}]}
    alone = apply(lab, service, wait=False)
    assert (alone.code, "warning: standard input:" in alone.err) == (0, True)
    assert "no pod has these labels (got app=front" in alone.err
    lab.must("delete", "service", "front")
    assert apply(lab, service, deployment("front", 1)).err == ""
    lab.must("delete", "-f", "-", "--ignore-not-found", stdin=json.dumps(service))
    lab.must("delete", "deployment", "front")


def test_a_forward_to_a_service_and_to_a_node_port_reaches_its_pods(lab: Lab) -> None:
    service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"}}
    ports = [{"name": "web", "port": 80, "targetPort": "http", "nodePort": 30123}]
    service["spec"] = {"type": "NodePort", "selector": {"app": "front"}, "ports": ports}
    assert apply(lab, deployment("front", 2), service).code == 0
    names = {item["metadata"]["name"] for item in pods_of(lab, "front")}
    for words in (
        ("svc/front", ":web"),
        ("front", "0:80"),
        ("deploy/front", ":http"),
        ("0:front:80",),
        ("node2", "0:30123"),
    ):
        with lab.running("forward", *words) as verb:
            port = int(read_until(verb.stdout, r"127\.0\.0\.1:\d+ ").partition("127.0.0.1:")[2].split()[0])
            assert {get(port).strip() for _ in range(3)} <= names
    with lab.running("forward", "svc/front", "0:80", "0:web", ":80") as verb:
        shown = read_until(verb.stdout, r"next:")
        numbers = {int(one) for one in re.findall(r"127\.0\.0\.1:(\d+) -> service front", shown)}
        assert len(numbers) == 3
        assert {get(number).strip() for number in numbers for _ in range(3)} <= names
    several = lab.testbed("forward", "svc/front", "0:80", "0:81")
    assert (several.code, several.out) == (1, ""), "all of them or none"
    assert "service front has no such TCP port (got 81; want 80)" in lab.testbed("forward", "0:front:81").err
    lab.must("delete", "service", "front")
    lab.must("delete", "deployment", "front")


def test_a_pod_has_its_config_map_and_its_secret_and_no_value_of_the_secret_is_shown(lab: Lab, tmp_path: Path) -> None:
    secret = "hunter2"
    encoded = base64.b64encode(secret.encode()).decode()
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"color": "red"}}
    keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"token": secret}}
    using = pod("using", volumes=[{"name": "keys", "secret": {"secretName": "keys"}}])
    using["spec"]["containers"][0] |= {
        "envFrom": [{"configMapRef": {"name": "web"}}],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
    }
    assert apply(lab, using, keys, wait=False).out.startswith("pod/using created\nsecret/keys created\n")
    state = "CreateContainerConfigError"
    wait_until(lambda: state in lab.must("get", "pods", "using"), timeout_s=30, what="the pod waits")
    assert 'Failed: Error: configmap "web" not found' in lab.must("describe", "pod", "using")
    assert apply(lab, settings, using).out.startswith("configmap/web created\npod/using unchanged\n")
    assert lab.run("using", "sh", "-c", 'echo "$color $(cat /keys/token)"') == f"red {secret}\n"
    settings["data"] = {"color": "blue"}
    assert apply(lab, settings).out.startswith("configmap/web configured\n")
    assert json.loads(lab.must("get", "cm", "web", "-o", "json"))["data"] == {"color": "blue"}
    assert json.loads(lab.must("get", "secret", "keys", "-o", "json"))["data"] == {"token": encoded}
    assert lab.must("get", "secrets").split() == ["SECRET", "TYPE", "DATA", "keys", "Opaque", "1"]
    assert "blue" in lab.must("describe", "configmap", "web")
    assert "7 bytes" in lab.must("describe", "secret", "keys")
    write_bundle(lab.handle, tmp_path / "bundle", title="secrets")
    shown = [path.read_bytes() for path in (tmp_path / "bundle").rglob("*") if path.is_file()]
    shown += contents_below(lab.handle.record.rundir)
    shown += [lab.must("describe", "secret", "keys").encode(), *command_lines()]
    assert not any(value.encode() in one for one in shown for value in (secret, encoded))
    for thing in ("configmap/web", "secret/keys", "pod/using"):
        assert lab.must("delete", thing) == f"{thing} deleted\n"


def links_of(pid: int) -> list[str]:
    """Return what each descriptor of a process is, of those that are not closed meanwhile."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return found


def contents_below(directory: Path) -> list[bytes]:
    """Return every file that does not go meanwhile."""
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found.append(path.read_bytes())
    return found


def command_lines() -> list[bytes]:
    """Return those of every process that does not end meanwhile."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(path.read_bytes())
    return found
