"""A Service of type LoadBalancer has an address of the underlay that gateway and nodes answer; nodes have labels."""

import json
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from testbed.pytest_plugin import NewLab
from tests.e2e.lab import Lab
from tests.waiting import wait_until

CLUSTER = """\
nodes: {node1: {}, node2: {labels: {disk: ssd}}}
images: {"*": echo}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      nodeSelector: {disk: ssd}
      containers:
        - name: shop
          image: example.com/shop:1.0
          imagePullPolicy: IfNotPresent
          ports: [{name: http, containerPort: 8080}]
          env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
          readinessProbe: {httpGet: {path: /_healthz, port: http}, periodSeconds: 1}
          livenessProbe: {exec: {command: [/shop, ping]}}
          securityContext: {runAsNonRoot: true, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {type: LoadBalancer, selector: {app: shop}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node1, containers: [{name: c, image: curlimages/curl, command: [sleep, infinity]}]}
"""


@pytest.fixture(scope="module")
def lab(_as_root: None, new_lab: NewLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("cluster") / "shop.yaml"
    Path(file).write_text(CLUSTER, encoding="utf-8")
    with new_lab(file) as handle:
        yield Lab(handle.name)


def address_of(lab: Lab) -> str:
    service = json.loads(lab.must("get", "svc", "shop", "-o", "json"))
    (ingress,) = service["status"]["loadBalancer"]["ingress"]
    return str(ingress["ip"])


def answer(lab: Lab, where: str, address: str) -> str:
    return lab.testbed("exec", where, "--", "curl", "-s", "-m", "5", f"http://{address}/").out


def test_gateway_nodes_and_pods_reach_it(lab: Lab) -> None:
    address = address_of(lab)
    assert IPv4Address(address) in IPv4Network("192.168.8.0/24")
    for where in ("gw", "node1", "node2", "client"):
        assert answer(lab, where, address).startswith("pod shop-"), where
    assert address in lab.must("get", "svc", "-o", "wide")


def test_pods_are_where_the_label_is(lab: Lab) -> None:
    found = json.loads(lab.must("get", "pods", "-l", "app=shop", "-o", "json"))["items"]
    assert {pod["spec"]["nodeName"] for pod in found} == {"node2"}


def test_the_address_is_refused_without_pods_and_removed_with_the_service(lab: Lab) -> None:
    address = address_of(lab)
    lab.must("scale", "deployment", "shop", "--replicas", "0", "--wait")
    wait_until(lambda: not answer(lab, "node1", address), timeout_s=20, what="no pod answers")
    lab.must("scale", "deployment", "shop", "--replicas", "1", "--wait")
    wait_until(
        lambda: answer(lab, "gw", address).startswith("pod shop-"), timeout_s=20, what="the gateway gets an answer"
    )
    assert address_of(lab) == address
    lab.must("delete", "svc", "shop")
    wait_until(
        lambda: address not in lab.must("exec", "gw", "--", "ip", "route"), timeout_s=20, what="the route is gone"
    )
