"""`up` on a lab that runs brings it to the changed cluster file; what the file leaves alone goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, fresh_name
from tests.unit.test_difference import BASE, SERVICE
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
GROWN = BASE.replace("node1: {}, node2: {}", "node1: {}, node2: {}, node3: {labels: {disk: ssd}}") + SERVICE
HOLD = (
    "import socket,sys,time\n"
    "s=socket.create_connection((sys.argv[1],8080));s.settimeout(5)\n"
    "for n in range(600):\n"
    "    s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n');assert s.recv(4096)\n"
    "    print(n,flush=True);time.sleep(0.1)\n"
)
"""One connection with a request each 0.1 s; ends at the first that is not answered."""


@pytest.fixture
def lab(_as_root: None, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(fresh_name("again"))
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "grown.yaml").write_text(GROWN)
    try:
        assert lab.up(str(tmp_path / "base.yaml")).code == 0
        yield lab
    finally:
        lab.down()


def test_a_changed_file_changes_only_what_it_describes(lab: Lab, tmp_path: Path) -> None:
    address = lab.pod("echo")["address"]
    before = {name: lab.json("describe", "pod", name)["Pause process"] for name in ("stays", "echo")}
    with lab.running("exec", "stays", "--", "python3", "-c", HOLD, address) as held:
        assert held.stdout.readline() == b"0\n"
        answer = lab.up(str(tmp_path / "grown.yaml"), "--dry-run")
        assert answer.code == 0, answer
        assert "2 changes (dry run)\n  + node node3\n  + service echo\n" in answer.out
        assert [node["name"] for node in lab.json("status")["nodes"]] == ["node1", "node2"]
        answer = lab.up(str(tmp_path / "grown.yaml"))
        assert answer.code == 0, answer
        assert [node["name"] for node in lab.json("status")["nodes"]] == ["node1", "node2", "node3"]
        assert lab.json("get", "nodes", "node3")["metadata"]["labels"]["disk"] == "ssd"
        assert "pod echo answers" in lab.run("stays", "curl", "-s", "http://echo/")
        answer = lab.up(str(tmp_path / "grown.yaml"))
        assert "nothing to change" in answer.out
        answer = lab.up(str(tmp_path / "base.yaml"))
        assert "2 changes\n  - service echo\n  - node node3\n" in answer.out
        assert [node["name"] for node in lab.json("status")["nodes"]] == ["node1", "node2"]
        seen = held.stdout.readline()
        wait_until(
            lambda: int(held.stdout.readline()) > int(seen) + 5, timeout_s=10, what="the connection still carries"
        )
    assert {name: lab.json("describe", "pod", name)["Pause process"] for name in before} == before


def test_an_unchangeable_field_is_reported_and_nothing_is_changed(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(GROWN.replace("10.0.0.0/16", "10.1.0.0/16").replace("192.168.8.0", "192.168.9.0"))
    answer = lab.up(str(file))
    assert answer.code == 2
    for field in ("network: ", "underlay.cidr: "):
        assert f"error: {file}: {field}" in answer.err
    assert "nothing was changed" in answer.err
    assert [node["name"] for node in lab.json("status")["nodes"]] == ["node1", "node2"]
