"""A lab whose agents use an etcd cluster that exists: real etcds on the host's loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.control.client import RUN_ROOT
from testbed.lab.certificates import Authority
from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.command import run_verb
from tests.e2e.lab import Lab, fresh_name
from tests.e2e.ordinary_user import OrdinaryUser
from tests.netns.etcd_server import EtcdServer, free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.row("C43")
PASSWORD = "only-in-a-file"
OTHERS = {"/registry/secrets/x": "of kubernetes", "/coreos.com/network/config": '{"Network":"10.7.0.0/16"}'}
LIMITED = (
    "user add root:secret",
    "role add root",
    "user grant-role root root",
    f"user add lab:{PASSWORD}",
    "role add lab",
    "role grant-permission lab --prefix=true readwrite /testbed/",
    "user grant-role lab lab",
    "auth enable",
)
GONE_WITHIN_S = 20.0


@dataclass(slots=True)
class Existing:
    """An etcd of others, and how the cluster file names it."""

    server: EtcdServer
    fields: dict[str, Any]
    secrets: list[str] = field(default_factory=list)

    def dump(self) -> dict[str, str]:
        """Return every key with its value."""
        lines = self.server.etcdctl("get", "--prefix", "").splitlines()
        return dict(zip(lines[::2], lines[1::2], strict=True))

    def below(self, prefix: str) -> list[str]:
        """Return the keys below a prefix, without it."""
        return [key.removeprefix(prefix) for key in self.dump() if key.startswith(prefix)]

    def file(self, directory: Path, name: str = "cluster.yaml", **more: object) -> str:
        """Write a cluster file with two nodes and a pod on each; return its path."""
        (path := directory / name).write_text(yaml.safe_dump_all(self.documents(**more)))
        return str(path)

    def documents(self, **more: object) -> list[dict[str, Any]]:
        """Return the same as values."""
        pods = [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"shell{number}"},
                "spec": {"nodeName": f"node{number}", "containers": [{"name": "shell", "image": "shell"}]},
            }
            for number in (1, 2)
        ]
        return [{"nodes": {"node1": {}, "node2": {}}, "etcd": {**self.fields, **more}}, *pods]


def plain(directory: Path) -> Existing:
    """Run an etcd without TLS and users."""
    server = EtcdServer(directory)
    server.start()
    return Existing(server, {"endpoints": [server.endpoint]})


def with_certificates(directory: Path) -> Existing:
    """Run an etcd that wants client certificates."""
    own, client = (_pair(directory, name) for name in ("server", "client"))
    flags = ["--client-cert-auth", f"--trusted-ca-file={directory / 'ca.pem'}"]
    server = EtcdServer(directory, [f"--cert-file={own[0]}", f"--key-file={own[1]}", *flags])
    server.etcdctl_flags = [f"--cacert={directory / 'ca.pem'}", f"--cert={client[0]}", f"--key={client[1]}"]
    server.start()
    files = {"ca": str(directory / "ca.pem"), "cert": client[0], "key": client[1]}
    return Existing(server, {"endpoints": [server.endpoint], **files}, [Path(client[1]).read_text().splitlines()[1]])


def with_a_user(directory: Path) -> Existing:
    """Run an etcd with TLS and a user who may write below /testbed/ only."""
    own = _pair(directory, "server")
    server = EtcdServer(directory, [f"--cert-file={own[0]}", f"--key-file={own[1]}"])
    server.etcdctl_flags = [f"--cacert={directory / 'ca.pem'}"]
    server.start()
    for command in LIMITED:
        server.etcdctl(*command.split())
    server.etcdctl_flags.append("--user=root:secret")
    (directory / "password").write_text(f"{PASSWORD}\n")
    login = {"user": "lab", "passwordFile": str(directory / "password")}
    return Existing(server, {"endpoints": [server.endpoint], "ca": str(directory / "ca.pem"), **login}, [PASSWORD])


AUTHORITY = Authority("of others")


def _pair(directory: Path, name: str) -> tuple[str, str]:
    files = AUTHORITY.issue(directory, str(directory), name, [IPv4Address("127.0.0.1")])
    return files.certificate, files.key


@pytest.fixture
def existing(tmp_path: Path) -> Iterator[Existing]:
    """Yield a plain etcd with keys of others."""
    yield from running(plain(tmp_path))


def running(etcd: Existing) -> Iterator[Existing]:
    """Yield it with keys of others, and stop it."""
    try:
        for key, value in OTHERS.items():
            etcd.server.etcdctl("put", key, value)
        yield etcd
    finally:
        etcd.server.stop()


def gates_of(lab: str) -> list[str]:
    """Return the command lines of the gate processes of a lab."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(word.endswith("etcd_gate.py") for word in words) and lab in words:
            found.append(" ".join(words))
    return found


def everything_readable(rundir: Path) -> str:
    """Return what a lab has written on the host, and every command line."""
    texts = [subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout]
    for path in rundir.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                texts.append(path.read_text(errors="replace"))
    return "".join(texts)


@pytest.mark.parametrize("kind", [plain, with_certificates, pytest.param(with_a_user, marks=pytest.mark.slow)])
def test_its_agents_use_the_cluster_and_leave_nothing_in_it(kind: Any, no_lab: Lab, tmp_path: Path) -> None:  # noqa: ANN401
    for etcd in running(kind(tmp_path)):
        before = etcd.dump()
        answer = no_lab.up(etcd.file(tmp_path))
        assert answer.code == 0, answer
        prefix = f"/testbed/{no_lab.name}/network"
        handle = no_lab.handle
        leases = [node.subnet.replace("/", "-") for node in handle.nodes.values() if node.subnet]
        assert sorted(etcd.below(f"{prefix}/subnets/")) == sorted(leases)
        assert {key: value for key, value in etcd.dump().items() if not key.startswith(prefix)} == before
        assert handle.check().problems == {}
        assert handle.ping("shell1", "shell2").received
        (member,) = no_lab.json("status")["etcd"]
        assert (member["cluster"], member["prefix"]) == (etcd.fields["endpoints"], prefix)
        assert f"{etcd.server.endpoint}, keys below {prefix}" in no_lab.must("status")
        assert no_lab.must("etcdctl", "--", "get", f"{prefix}/config").splitlines()[1].startswith('{"Network"')
        written = everything_readable(RUN_ROOT / no_lab.name)
        assert not [secret for secret in etcd.secrets if secret in written]
        down = no_lab.down()
        assert (down.code, down.err) == (0, "")
        assert etcd.dump() == before
        wait_until(lambda: not gates_of(no_lab.name), timeout_s=GONE_WITHIN_S, what="the gate has ended")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, new_lab: NewLab) -> Iterator[tuple[Existing, LabHandle]]:
    """Yield an etcd and a lab that uses it."""
    for etcd in running(with_certificates(tmp_path_factory.mktemp("etcd"))):
        with new_lab(etcd.documents()) as lab:
            yield etcd, lab


def test_the_cluster_restarts_and_the_lab_recovers(shared: tuple[Existing, LabHandle]) -> None:
    etcd, lab = shared
    subnets = {name: node.subnet for name, node in lab.nodes.items()}
    etcd.server.stop()
    wait_until(lambda: not lab.status()["etcd"][0]["healthy"], timeout_s=30, what="the lab notices")
    assert lab.ping("shell1", "shell2").received
    etcd.server.start()
    lab.wait_until(lambda: lab.status()["state"] == "ready" and not lab.check().problems, 60, "the lab recovers")
    assert {name: node.subnet for name, node in lab.nodes.items()} == subnets
    log = lab.logs("etcd1")
    assert "Connection refused" in log
    assert "the cluster answers" in log


@pytest.mark.parametrize(
    "fault", ["etcd stop etcd1", "etcd kill leader", "etcd wipe etcd1", "etcd quota etcd1", "etcd compact"]
)
def test_faults_of_a_cluster_of_others_are_refused(fault: str, shared: tuple[Existing, LabHandle]) -> None:
    etcd, lab = shared
    revision = etcd.server.revision()
    answer = Lab(lab.name).testbed("fault", *fault.split())
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.count("\n") == 1
    assert f"{fault}: the etcd cluster is not the lab's to break (want `etcd partition etcd1`" in answer.err
    # Nothing was compacted either.
    etcd.server.etcdctl("get", f"--rev={revision}", "/registry/secrets/x")


@pytest.mark.parametrize("fault", ["etcd partition etcd1", "link down etcd1 s1"])
def test_the_way_to_the_cluster_can_be_cut(fault: str, shared: tuple[Existing, LabHandle]) -> None:
    _, lab = shared
    with lab.fault(fault):
        reach = lab.exec("node1", "curl", "-sk", "--max-time", "1", "https://192.168.8.11:2379/")
        assert reach.exit_code in (7, 28), reach
        assert lab.ping("shell1", "shell2").received
    lab.wait_until(lambda: not lab.check().problems, 40, "the lab recovers")


def test_without_a_certificate_of_the_lab_no_machine_reaches_the_cluster(shared: tuple[Existing, LabHandle]) -> None:
    _, lab = shared
    url = "https://192.168.8.11:2379/version"
    own = ["--cacert", "/run/tls/ca.pem", "--cert", "/run/tls/agent-node1.pem", "--key", "/run/tls/agent-node1.key"]
    assert lab.exec("node1", "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "--http2", *own, url).exit_code == 0
    refused = lab.exec("node1", "curl", "-sS", "--max-time", "10", *own[:2], url)
    assert (refused.exit_code, refused.stdout) != (0, "")
    assert "etcdserver" not in refused.stdout


def test_the_page_shows_the_relay(shared: tuple[Existing, LabHandle]) -> None:
    etcd, lab = shared
    machines = {machine["name"]: machine for machine in Lab(lab.name).json("graph")["machines"]}
    assert (machines["etcd1"]["kind"], machines["etcd1"]["cluster"]) == ("etcd", etcd.fields["endpoints"])
    assert "cluster" not in machines["gw"]


@pytest.mark.slow
def test_two_labs_on_one_cluster_keep_apart(existing: Existing, no_lab: Lab, tmp_path: Path) -> None:
    before = existing.dump()
    second = Lab(fresh_name("second"))
    try:
        for lab in (no_lab, second):
            assert lab.up(existing.file(tmp_path)).code == 0
        for lab in (no_lab, second):
            assert len(lab.handle.get("leases")) == 2
            assert lab.handle.check().problems == {}
        assert second.down().code == 0
        assert no_lab.handle.check().problems == {}
    finally:
        second.down()
    no_lab.down()
    assert existing.dump() == before


def test_a_killed_lab_leaves_no_gate_and_the_next_one_takes_its_keys_over(
    existing: Existing, no_lab: Lab, tmp_path: Path
) -> None:
    before, file = existing.dump(), existing.file(tmp_path)
    assert no_lab.up(file).code == 0
    assert len(gates_of(no_lab.name)) == 1
    os.kill(no_lab.json("status")["pid"], signal.SIGKILL)
    wait_until(lambda: not gates_of(no_lab.name), timeout_s=GONE_WITHIN_S, what="the gate has ended")
    assert existing.below(f"/testbed/{no_lab.name}/")
    assert no_lab.up(file).code == 0
    assert no_lab.handle.check().problems == {}
    assert no_lab.down().code == 0
    assert existing.dump() == before


def refused(lab: Lab, file: str, code: int) -> str:
    """Return what `up` says when it refuses; nothing is made."""
    answer = lab.up(file)
    assert (answer.code, answer.out) == (code, ""), answer
    assert not (RUN_ROOT / lab.name).exists()
    assert not gates_of(lab.name)
    return answer.err


def test_what_is_unusable_is_named_before_anything_is_made(existing: Existing, no_lab: Lab, tmp_path: Path) -> None:
    before = existing.dump()
    silent = f"http://127.0.0.1:{free_port()}"
    said = refused(no_lab, existing.file(tmp_path, endpoints=[silent]), 3)
    assert said == f"error: etcd.endpoints: none answers (got {silent}: Connection refused; want an etcd that does)\n"
    secure = ["https://127.0.0.1:1"]
    file = existing.file(tmp_path, endpoints=secure, ca="/no/ca", cert="/no/cert", key="/dev/null")
    lines = refused(no_lab, file, 3).splitlines()
    assert [line.split(": cannot be read")[0] for line in lines] == [
        "error: etcd.ca",
        "error: etcd.cert",
        "error: etcd.key",
    ]
    assert "not a regular file" in lines[2]
    (tmp_path / "junk").write_text("junk")
    assert "etcd.ca, cert, key: unusable" in refused(
        no_lab, existing.file(tmp_path, endpoints=secure, ca=str(tmp_path / "junk")), 3
    )
    prefix = f"/testbed/{no_lab.name}/network"
    existing.server.etcdctl("put", f"{prefix}/x", "y")
    assert f"{prefix} has keys of another program (got {prefix}/x;" in refused(no_lab, existing.file(tmp_path), 4)
    marker = {"lab": no_lab.name, "host": "far", "machine": "x", "rundir": "/run/testbed/x", "config": True}
    existing.server.etcdctl("put", f"{prefix}/labs/{no_lab.name}", json.dumps(marker))
    assert f"of lab {no_lab.name} of far" in refused(no_lab, existing.file(tmp_path), 4)
    existing.server.etcdctl("del", "--prefix", prefix)
    assert "/coreos.com/network/config is another network's" in refused(
        no_lab, existing.file(tmp_path, prefix="/coreos.com/network"), 4
    )
    assert existing.dump() == before


def test_a_bad_certificate_or_password_is_named(no_lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for etcd in running(with_a_user(tmp_path / "one")):
        (wrong := tmp_path / "wrong").write_text("wrong")
        said = refused(no_lab, etcd.file(tmp_path, passwordFile=str(wrong)), 4)
        assert "authentication failed, invalid user ID or password" in said
        Authority("others").issue(tmp_path, str(tmp_path), "x")
        said = refused(no_lab, etcd.file(tmp_path, ca=str(tmp_path / "ca.pem")), 3)
        assert "its certificate: " in said
        assert "permission denied" in refused(no_lab, etcd.file(tmp_path, prefix="/registry"), 4)


def test_files_are_read_with_the_rights_of_who_called_sudo(existing: Existing, no_lab: Lab, tmp_path: Path) -> None:
    (key := tmp_path / "roots").write_text("secret")
    key.chmod(0o600)
    file = existing.file(tmp_path, endpoints=["https://127.0.0.1:1"], ca=str(key))
    answer = run_verb("up", "--lab", no_lab.name, file, extra={"SUDO_UID": "64321", "SUDO_GID": "64321"})
    assert answer.code == 3
    assert "etcd.ca: cannot be read" in answer.err
    assert "Permission denied" in answer.err


@pytest.mark.slow
def test_a_named_prefix_is_shared_with_other_agents(existing: Existing, no_lab: Lab, tmp_path: Path) -> None:
    config = '{"Network":"10.0.0.0/16","SubnetLen":24,"Backend":{"Type":"udp"}}'
    existing.server.etcdctl("put", "/shared/config", config)
    existing.server.etcdctl("put", "/shared/subnets/10.0.9.0-24", '{"PublicIP":"192.0.2.9","PublicIPv6":null}')
    before = existing.dump()
    assert no_lab.up(existing.file(tmp_path, prefix="/shared")).code == 0
    assert len(existing.below("/shared/subnets/")) == 3
    assert "10.0.9.0/24" in no_lab.must("get", "leases")
    assert no_lab.handle.check().problems == {}
    assert no_lab.down().code == 0
    assert existing.dump() == before


@pytest.mark.slow
def test_down_says_what_stays_where_the_cluster_does_not_answer(
    existing: Existing, no_lab: Lab, tmp_path: Path
) -> None:
    before = existing.dump()
    assert no_lab.up(existing.file(tmp_path)).code == 0
    existing.server.stop()
    answer = no_lab.down()
    assert answer.code == 0
    assert f"its keys below /testbed/{no_lab.name}/network in etcd ({existing.server.endpoint}) stay: " in answer.err
    existing.server.start()
    assert no_lab.up(existing.file(tmp_path)).code == 0
    assert no_lab.down().code == 0
    assert existing.dump() == before


@pytest.mark.slow
def test_a_lab_without_root_uses_it_too(existing: Existing) -> None:
    before, name, python = existing.dump(), fresh_name("rootless"), (sys.executable, "-P", "-B")
    user = OrdinaryUser.hold()
    try:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o755)
            up = user.testbed(python, "up", "--rootless", "--lab", name, existing.file(Path(directory)))
        assert up.returncode == 0, up.stdout + up.stderr
        assert len(existing.below(f"/testbed/{name}/network/subnets/")) == 2
        assert user.testbed(python, "down", "--lab", name).returncode == 0
        assert existing.dump() == before
        wait_until(lambda: not gates_of(name), timeout_s=GONE_WITHIN_S, what="the gate has ended")
    finally:
        user.testbed(python, "down", "--all")
        user.close()
