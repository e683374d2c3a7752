"""What a lab without root refuses, and where labs are looked for."""

from pathlib import Path

import pytest

from testbed.cluster.spec import load_cluster
from testbed.control import client
from testbed.host import rootless

HEAD = """apiVersion: testbed/v1
kind: Cluster
metadata: {name: one}
network: {Network: 10.0.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {topology: single, cidr: 192.168.8.0/24}
nodes: {node1: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: web, %s}]}
"""


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ("image: nginx", "image nginx switches to another user"),
        ("image: shell, securityContext: {runAsUser: 1000}", "runAsUser: 1000"),
        ("image: shell, securityContext: {runAsUser: 0}", None),
        ("image: tomcat", None),
        ("image: nginx, command: [sleep, inf]", None),
    ],
)
def test_a_container_that_becomes_another_user_is_refused(tmp_path: Path, container: str, said: str | None) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(HEAD % container)
    lines = rootless.refusals(load_cluster(file))
    assert [said in line for line in lines] == ([True] if said else [])  # type: ignore[operator]  # None: no line


def test_a_runtime_directory_of_somebody_else_is_nobodys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert client.run_roots() == [tmp_path / "testbed", client.RUN_ROOT]
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert client.run_roots() == [client.RUN_ROOT]
    assert not rootless.runtime_directory_check(client.runtime_directory()).ok
