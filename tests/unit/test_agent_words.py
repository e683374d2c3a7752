"""The command line of an agent that is not ours."""

from pathlib import Path

import pytest

from testbed.cluster.agent_words import PLACEHOLDERS, agent_words, named
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import read_cluster

VALUES = {
    "etcd": "https://192.168.8.11:2379",
    "etcd_prefix": "/coreos.com/network",
    "etcd_ca": "/run/etcd/ca.pem",
    "etcd_cert": "/run/etcd/agent.pem",
    "etcd_key": "/run/etcd/agent.key",
    "iface": "node1-eth0",
    "address": "192.168.8.101",
    "node": "node1",
    "subnet_file": "/run/flannel/subnet.env",
}


def test_without_a_name_in_braces_flannels_flags_are_put_behind() -> None:
    assert agent_words(["/opt/flanneld", "--ip-masq"], VALUES) == [
        "/opt/flanneld",
        "--ip-masq",
        "--etcd-endpoints=https://192.168.8.11:2379",
        "--iface=node1-eth0",
        "--subnet-file=/run/flannel/subnet.env",
        "--etcd-cafile=/run/etcd/ca.pem",
        "--etcd-certfile=/run/etcd/agent.pem",
        "--etcd-keyfile=/run/etcd/agent.key",
    ]


def test_without_certificates_there_are_no_flags_for_them() -> None:
    without = VALUES | {"etcd_ca": "", "etcd_cert": "", "etcd_key": ""}
    assert agent_words(["/opt/flanneld"], without)[-1] == "--subnet-file=/run/flannel/subnet.env"


def test_names_in_braces_are_replaced_and_nothing_is_put_behind() -> None:
    words = agent_words(["/opt/mine", "--store={etcd}", "--dev", "{iface}", "{node}@{address}"], VALUES)
    assert words == ["/opt/mine", "--store=https://192.168.8.11:2379", "--dev", "node1-eth0", "node1@192.168.8.101"]


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_every_name_has_a_value(name: str) -> None:
    assert agent_words([f"{{{name}}}"], VALUES) == [VALUES[name]]


def test_doubled_braces_and_json_are_text() -> None:
    command = ["/opt/mine", "{{etcd}}", '{"a":{"b":1}}', "{iface}"]
    assert named(command) == ["iface"]
    assert agent_words(command, VALUES) == ["/opt/mine", "{etcd}", '{"a":{"b":1}}', "node1-eth0"]
    assert agent_words(["/opt/mine", "{{etcd}}"], VALUES)[:3] == [
        "/opt/mine",
        "{etcd}",
        VALUES["etcd"].join(("--etcd-endpoints=", "")),
    ]


def problem(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read_cluster(f"nodes: [a]\n{text}\n".encode(), "c.yaml")
    return str(caught.value)


def test_a_name_that_does_not_exist_is_a_problem() -> None:
    found = problem('agent: {command: [/opt/mine, "--dev={interface}"]}')
    assert found.startswith(
        "error: c.yaml:2:8: agent: no such value for an agent's command (got {interface}; want {etcd}, "
    )
    assert found.endswith("or {{interface}} for the text)")


def test_a_certificate_that_the_lab_has_not_is_a_problem() -> None:
    assert problem('etcd: {tls: false}\nagent: {command: [/opt/mine, "{etcd_key}"]}') == (
        "error: c.yaml:3:18: agent.command: etcd has no certificates here "
        "(got {etcd_key} and tls: false; want etcd: {tls: true})"
    )


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_the_page_for_own_agents_has_every_name(name: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "own-project.md"
    assert f"`{{{name}}}`" in page.read_text(encoding="utf-8")
