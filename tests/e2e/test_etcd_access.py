"""Who may do what in the lab's etcd: agents their own part, nobody without a certificate anything."""

import pytest

from testbed.testing.lab_answers import Result
from testbed.testing.lab_handle import LabHandle

ENDPOINT = "https://192.168.8.11:2379"
PREFIX = "/coreos.com/network"


@pytest.fixture
def lab(two_nodes_handle: LabHandle) -> LabHandle:
    """Return the shared lab."""
    return two_nodes_handle


def etcdctl(lab: LabHandle, *words: str, user: str | None = "agent-node1", node: str = "node1") -> Result:
    """Return the real etcdctl on a node, with an agent's certificate or with none."""
    secure = ["ETCDCTL_CACERT=/run/tls/ca.pem", f"ETCDCTL_ENDPOINTS={ENDPOINT}", "ETCDCTL_API=3"]
    if user is not None:
        secure += [f"ETCDCTL_CERT=/run/tls/{user}.pem", f"ETCDCTL_KEY=/run/tls/{user}.key"]
    return lab.exec(node, "env", *secure, "etcdctl", "--dial-timeout=5s", "--command-timeout=5s", *words)


def test_an_agent_reads_the_config_and_writes_leases(lab: LabHandle) -> None:
    assert "Network" in etcdctl(lab, "get", f"{PREFIX}/config").check()
    key = f"{PREFIX}/subnets/10.0.250.0-24"
    etcdctl(lab, "put", key, "junk").check()
    etcdctl(lab, "del", key).check()


@pytest.mark.parametrize(
    "words",
    [
        ("put", f"{PREFIX}/config", "x"),
        ("put", "/other", "x"),
        ("get", "--prefix", "/"),
        ("del", "--prefix", PREFIX),
        ("user", "list"),
        ("auth", "disable"),
    ],
)
def test_an_agent_touches_nothing_else(lab: LabHandle, words: tuple[str, ...]) -> None:
    answer = etcdctl(lab, *words)
    assert answer.exit_code != 0
    assert "permission denied" in answer.stderr


def test_without_a_certificate_nobody_gets_anywhere(lab: LabHandle) -> None:
    assert etcdctl(lab, "get", f"{PREFIX}/config").exit_code == 0
    assert etcdctl(lab, "get", f"{PREFIX}/config", user=None).exit_code != 0
    plain = lab.exec("node1", "curl", "--silent", "--max-time", "2", "http://192.168.8.11:2379/version")
    assert (plain.exit_code, plain.stdout) != (0, "")
    assert "etcdserver" not in plain.stdout


@pytest.mark.slow
def test_an_agent_is_no_member(lab: LabHandle) -> None:
    """The members' own port knows no access control: who speaks there may write whatever he likes."""
    members = "https://192.168.8.11:2380/members"
    own = ("--cert", "/run/tls/agent-node1.pem", "--key", "/run/tls/agent-node1.key")
    for proof in ((), own):
        answer = lab.curl("node1", members, "--http1.1", "--cacert", "/run/tls/ca.pem", *proof, timeout_s=2)
        assert answer.status == 0, answer
        assert "etcd1" not in answer.body


def test_a_node_sees_its_own_key_alone_and_only_root_may_read_it(lab: LabHandle) -> None:
    listed = lab.exec("node1", "stat", "-c", "%a %n", "/run/tls", *_keys(lab, "node1")).check().splitlines()
    assert listed[0] == "700 /run/tls"
    assert {line.split()[0] for line in listed[1:]} == {"600"}
    assert [line.split()[1] for line in listed[1:]] == ["/run/tls/agent-node1.key"]


def test_the_lab_itself_may_do_everything(lab: LabHandle) -> None:
    lab.etcdctl("put", "/other", "x").check()
    lab.etcdctl("del", "/other").check()
    assert "agent-node1" in lab.etcdctl("user", "list").check()


def _keys(lab: LabHandle, node: str) -> list[str]:
    return lab.exec(node, "sh", "-c", "ls /run/tls/*.key").check().split()
