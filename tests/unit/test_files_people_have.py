"""Files as kubectl, kustomize and Mininet users have them are taken as those programs take them."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from testbed.cluster.problems import Problem, SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.cluster.yaml_source import dump_documents

CLUSTER = """\
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
nodes: {node1: {}, node2: {}}
"""
DRY_RUN = """
apiVersion: apps/v1
kind: Deployment
metadata:
  creationTimestamp: null
  labels:
    app: web
  name: web
spec:
  replicas: 1
  selector:
    matchLabels:
      app: web
  strategy: {}
  template:
    metadata:
      creationTimestamp: null
      labels:
        app: web
    spec:
      affinity: {}
      tolerations: []
      containers:
      - image: echo
        name: echo
        resources: {}
status: {}
"""


def read(manifests: str, cluster: str = CLUSTER) -> Cluster:
    return read_cluster(f"{cluster}---\n{manifests}".encode(), "c.yaml")


def problems_of(manifests: str, cluster: str = CLUSTER) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(manifests, cluster)
    return [str(problem) for problem in caught.value.problems]


def pod(spec: str) -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{app: web}}}}\nspec: {spec}\n"


def test_what_kubectl_prints_in_a_dry_run_is_taken() -> None:
    deployment = read(DRY_RUN).deployments[0]
    assert (deployment.name, deployment.spec.strategy.type) == ("web", "RollingUpdate")


CREATE_SERVICE = """
apiVersion: v1
kind: Service
metadata:
  creationTimestamp: null
  labels:
    app: web
  name: web
spec:
  ports:
  - name: 80-8080
    port: 80
    protocol: TCP
    targetPort: 8080
  selector:
    app: web
  type: ClusterIP
status:
  loadBalancer: {}
"""
RUN = """
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: null
  labels:
    run: web
  name: web
spec:
  containers:
  - image: echo
    name: web
    resources: {}
  dnsPolicy: ClusterFirst
  restartPolicy: Always
status: {}
"""


def test_what_kubectl_run_expose_and_create_service_print_is_taken() -> None:
    found = read(f"{CREATE_SERVICE}---{RUN}")
    assert found.services[0].spec.ports[0].name == "80-8080"
    assert found.pods[0].metadata.labels == {"run": "web"}


def test_a_field_with_a_value_is_not_left_out() -> None:
    status = CREATE_SERVICE.replace("loadBalancer: {}", "loadBalancer: {ingress: [{ip: 1.2.3.4}]}")
    assert any("status: ignored: the lab has its own" in str(warning) for warning in read(status).warnings)
    (problem,) = problems_of(RUN.replace("ClusterFirst", "First"))
    assert "spec.dnsPolicy: not one of the known values (got First; want ClusterFirst, " in problem


@pytest.mark.parametrize("empty", ["", "null", "~"])
def test_a_key_without_a_value_is_left_out_everywhere(empty: str) -> None:
    text = f"""
apiVersion: v1
kind: Pod
metadata:
  name: p
  labels: {empty}
  annotations: {empty}
spec:
  volumes: {empty}
  nodeName: {empty}
  restartPolicy: {empty}
  shareProcessNamespace: {empty}
  terminationGracePeriodSeconds: {empty}
  securityContext: {empty}
  containers:
  - name: c
    image: shell
    command: {empty}
    args: {empty}
    env: {empty}
    ports: {empty}
    securityContext: {empty}
    readinessProbe: {empty}
    resources: {empty}
"""
    plain = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: shell}]}\n"
    assert read(text).pods == read(plain).pods


def test_a_key_without_a_value_is_left_out_of_the_cluster_document_too() -> None:
    cluster = """
apiVersion: testbed/v1
kind: Cluster
metadata:
underlay: {cidr: , mtu: null, topology: ~}
nodes: {node1: , node2: {ip: null, agent: }}
etcd:
agent:
dns:
network:
"""
    found = read_cluster(cluster.encode(), "c.yaml")
    assert list(found.nodes) == ["node1", "node2"]
    assert (found.name, found.underlay.mtu) == ("lab", 1500)


EMPTY = """
  nodeName: ""
  restartPolicy: ""
  hostname: ""
  volumes: []
  containers:
  - name: c
    image: shell
    command: []
    args: []
    workingDir: ""
    env: [{name: A, value: }]
    ports: [{containerPort: 80, name: "", protocol: "", hostPort: 0}]
    livenessProbe: {exec: {command: [a]}, periodSeconds: 0, timeoutSeconds: 0, successThreshold: 0, failureThreshold: 0}
"""


def test_empty_text_empty_lists_and_zero_are_left_out_where_go_leaves_them_out() -> None:
    spec = read(pod(EMPTY)).pods[0].spec
    (container,) = spec.containers
    probe, port = container.liveness_probe, container.ports[0]
    assert (spec.restart_policy, spec.hostname) == ("Always", None)
    assert (container.command, container.working_dir) == (None, None)
    assert container.env[0].value == ""
    assert (port.name, port.protocol, port.host_port) == (None, "TCP", None)
    assert probe is not None
    assert (probe.period_seconds, probe.timeout_seconds, probe.failure_threshold) == (10, 1, 3)


def test_a_volume_without_a_source_is_an_empty_directory() -> None:
    text = pod("{volumes: [{name: a}, {name: b, emptyDir: }], containers: [{name: c, image: shell}]}")
    assert all(volume.empty_dir is not None for volume in read(text).pods[0].spec.volumes)


@pytest.mark.parametrize("source", ["nfs", "persistentVolumeClaim", "image"])
def test_a_volume_of_another_source_is_not_an_empty_directory(source: str) -> None:
    text = pod(f"{{volumes: [{{name: a, {source}: {{}}}}], containers: [{{name: c, image: shell}}]}}")
    (problem,) = problems_of(text)
    assert f"got {source};" in problem


def test_a_label_without_a_value_has_the_empty_value() -> None:
    text = pod("{containers: [{name: c, image: shell}]}").replace("app: web", "a: , b: ''")
    assert read(text).pods[0].metadata.labels == {"a": "", "b": ""}


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  selector: {app: web}
  type: ""
  clusterIP: ""
  ports:
  - {name: mysql, port: 3306, targetPort: 0, nodePort: 0}
  - {name: incremental-transfer, port: 4444, targetPort: ""}
  - {name: "8080", port: 8080}
  - {name: a--b, port: 1}
"""


def test_a_port_of_a_service_has_the_name_of_a_dns_label() -> None:
    ports = read(SERVICE).services[0].spec.ports
    assert [port.name for port in ports] == ["mysql", "incremental-transfer", "8080", "a--b"]
    assert {port.target_port for port in ports} == {None}


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a" * 64, "a_b"])
def test_another_name_of_a_port_is_one_problem_and_not_two(name: str) -> None:
    (problem,) = problems_of(SERVICE.replace("a--b", name))
    assert "spec.ports[3].name: not a " in problem


LIST = """
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: web, labels: {app: web}}
  spec: {containers: [{name: echo, image: echo}]}
- apiVersion: v1
  kind: List
  items:
  - apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec:
      ports: [{port: 80, targetPort: 8080}]
      selector: {app: web}
"""


def test_a_list_is_its_items() -> None:
    found = read(LIST)
    assert [found.pods[0].name, found.services[0].name] == ["web", "web"]


def test_problems_in_a_list_stand_where_they_are_in_the_file() -> None:
    (problem,) = problems_of(LIST.replace("port: 80,", "port: 0,"))
    assert problem.startswith("error: c.yaml:22:22: spec.ports[0].port: out of range")


@pytest.mark.parametrize("items", ["items: 5", "items: {a: b}"])
def test_a_list_of_no_items_is_reported(items: str) -> None:
    (problem,) = problems_of(f"apiVersion: v1\nkind: List\n{items}\n")
    assert "items: wrong type" in problem
    assert read("apiVersion: v1\nkind: List\nitems:\n").pods == ()


def test_a_merge_key_is_followed() -> None:
    text = pod("{containers: [&foo {name: foo, image: shell, command: [sleep, infinity]}, {<<: *foo, name: bar}]}")
    foo, bar = read(text).pods[0].spec.containers
    assert (bar.name, bar.command) == ("bar", foo.command)


@pytest.mark.parametrize("value", ["y", "yes", "on", "0x10", "1_000"])
def test_a_truth_or_a_number_where_text_is_wanted_is_shown_as_it_stands_in_the_file(value: str) -> None:
    (problem,) = problems_of(pod(f"{{containers: [{{name: c, image: shell, env: [{{name: A, value: {value}}}]}}]}}"))
    assert f"(got {value}" in problem
    assert f'"{value}"' in problem


RICH: dict[str, Any] = {
    "pod": """
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: web}, annotations: {a: b}}
spec:
  nodeName: node1
  hostname: h
  restartPolicy: Never
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 3
  volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 64Mi}}, {name: w, hostPath: {path: /srv, type: Directory}}]
  containers:
  - name: c
    image: shell
    command: [sleep]
    args: ["1"]
    env: [{name: A, value: b}]
    workingDir: /tmp
    ports: [{containerPort: 80, protocol: TCP, name: http, hostPort: 8080, hostIP: 0.0.0.0}, {containerPort: 81}]
    volumeMounts: [{name: v, mountPath: /v, readOnly: true, subPath: x}, {name: w, mountPath: /w}]
    securityContext: {privileged: true, runAsUser: 33}
    readinessProbe: {httpGet: {port: http, path: /, host: a, scheme: HTTP, httpHeaders: [{name: a, value: b}]}}
    livenessProbe: {exec: {command: [a]}, initialDelaySeconds: 1, periodSeconds: 1, failureThreshold: 2}
  - name: d
    image: echo
    readinessProbe: {tcpSocket: {port: 80}}
""",
    "service": """
apiVersion: v1
kind: Service
metadata: {name: s}
spec:
  selector: {app: web}
  type: NodePort
  clusterIP: 10.96.3.4
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv4]
  ports: [{name: a, port: 1, targetPort: 3, nodePort: 30001, protocol: TCP}, {name: b, port: 2, targetPort: x}]
""",
    "deployment": """
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 2
  minReadySeconds: 3
  revisionHistoryLimit: 4
  progressDeadlineSeconds: 60
  paused: true
  selector: {matchLabels: {app: web, tier: a}}
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web, tier: a}}
    spec:
      nodeName: node2
      volumes: [{name: v, emptyDir: {}}]
      containers: [{name: c, image: shell, volumeMounts: [{name: v, mountPath: /v}]}]
""",
    "replica set": """
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: r}
spec:
  replicas: 2
  minReadySeconds: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeName: node2, containers: [{name: c, image: shell}]}
""",
    "daemon set": """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: d}
spec:
  minReadySeconds: 3
  selector: {matchLabels: {app: web}}
  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeSelector: {disk: ssd}, containers: [{name: c, image: shell}]}
""",
    "cluster": """
apiVersion: testbed/v1
kind: Cluster
metadata: {name: c}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay:
  cidr: 192.168.8.0/22
  mtu: 1400
  switch: bridge
  gateway: 192.168.8.9
  switches: [s1, s2]
  routers: [r1]
  links:
  - {ends: [node1, s1], bandwidth: 10, delay: 1ms, jitter: 1ms, loss: 1, maxQueueSize: 5}
  - {ends: [node2, s2]}
  - {ends: [r1, s1]}
  - {ends: [s2, r1]}
nodes: {node1: {ip: 192.168.8.33, subnet: 10.0.3.0/24, reserved: true}, node2: {agent: {args: [-v=1]}}}
etcd: {members: 3, tls: true}
agent: {args: [-v=2]}
dns: true
""",
}


def leaves(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield every place of a scalar."""
    if isinstance(value, dict | list) and value:
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, step))
    else:
        yield path


def with_value(value: Any, path: tuple[str | int, ...], wrong: object) -> Any:  # noqa: ANN401 - plain data
    if not path:
        return wrong
    changed = copy.copy(value)
    changed[path[0]] = with_value(value[path[0]], path[1:], wrong)
    return changed


CASES = [(kind, path) for kind, text in RICH.items() for path in leaves(yaml.safe_load(text))]


@pytest.mark.parametrize("wrong", [{"a": "b"}, "%/..", -7], ids=str)
@pytest.mark.parametrize(("kind", "path"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_one_wrong_value_is_one_problem(kind: str, path: tuple[str | int, ...], wrong: object) -> None:
    """No second error that only follows from the first."""
    documents = {name: yaml.safe_load(text) for name, text in RICH.items()}
    documents[kind] = with_value(documents[kind], path, wrong)
    order = [documents.pop("cluster"), *documents.values()]
    problems: tuple[Problem, ...] = ()
    try:
        read_cluster(dump_documents(order).encode(), "c.yaml")
    except SpecError as error:
        problems = error.problems
    assert len(problems) < 2


def test_the_files_that_are_made_wrong_are_right() -> None:
    others = [text for name, text in RICH.items() if name != "cluster"]
    read_cluster("---".join([RICH["cluster"], *others]).encode(), "c.yaml")


@pytest.mark.parametrize(
    "key",
    [
        *("hostPID", "hostIPC", "affinity", "ephemeralContainers"),
        *("activeDeadlineSeconds", "readinessGates", "resourceClaims", "setHostnameAsFQDN"),
    ],
)
def test_a_field_of_kubernetes_is_no_misspelt_other_field(key: str) -> None:
    (problem,) = problems_of(pod(f"{{{key}: x, containers: [{{name: c, image: shell}}]}}"))
    assert f"(got {key};" in problem
    assert "did you mean" not in problem


@pytest.mark.parametrize("kind", ["apps/v1 ControllerRevision", "v1 PodTemplate"])
def test_a_kind_of_kubernetes_is_no_misspelt_other_kind(kind: str) -> None:
    version, name = kind.split()
    (problem,) = problems_of(f"apiVersion: {version}\nkind: {name}\nmetadata: {{name: a}}\n")
    assert f"got {kind};" in problem
    assert "did you mean" not in problem


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("{nodename: node1, containers: [{name: c, image: shell}]}", "nodeName"),
        ("{containers: [{name: c, image: shell, comand: [a]}]}", "command"),
        ("{containers: [{name: c, image: shell, port: [{containerPort: 80}]}]}", "ports"),
        ("{containers: [{name: c, image: shell, volumeMount: [{name: a}]}]}", "volumeMounts"),
    ],
)
def test_a_misspelt_field_is_named(spec: str, hint: str) -> None:
    (problem,) = problems_of(pod(spec))
    assert f'did you mean "{hint}"?' in problem
