"""A failing test leaves a bundle from which the failure can be explained when the lab is gone.

Three failures made on purpose, each as a test of a user's; then only the bundle is read.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.bundle import write_bundle
from tests.e2e.inner_pytest import Project, Run, prefix_for

FAILURES = """
    import pytest

    pytestmark = pytest.mark.lab("two_nodes")
    TAKER = "import socket, time, contextlib\\ntaker = socket.socket(type=socket.SOCK_DGRAM)\\nwhile True:\\n"
    TAKER += " with contextlib.suppress(OSError):\\n  taker.bind(('192.168.8.102', 8285))\\n  time.sleep(60)\\n"


    def reaches(lab):
        return lab.curl("shell1", f"http://{lab.pods['echo2'].address}:8080/hostname", timeout_s=2).body == "echo2\\n"


    def test_agent_is_killed_and_cannot_come_back(lab_per_test):
        lab = lab_per_test
        lab.exec("node2", "sh", "-c", 'setsid python3 -c "$0" >/dev/null 2>&1 &', TAKER).check()
        lab.agent("node2").kill()
        lab.wait_until(lambda: lab.nodes["node2"].agent_state == "backoff", 10, "node2's agent ended")
        assert lab.wait_until(lambda: reaches(lab), 2, "shell1 reaches echo2")


    def test_route_is_gone(lab_per_test):
        assert reaches(lab_per_test)
        lab_per_test.script("ip netns exec echo2 ip route del default").check()
        assert reaches(lab_per_test)


    def test_rule_drops_the_overlay(lab_per_test):
        assert reaches(lab_per_test)
        rules = "add table ip mine; add chain ip mine in { type filter hook input priority 0; }; "
        rules += "add rule ip mine in udp dport 8285 counter drop"
        lab_per_test.exec("node2", "nft", rules).check()
        assert reaches(lab_per_test)
"""
NO_PODS = {
    "apiVersion": "testbed/v1",
    "kind": "Cluster",
    "metadata": {"name": "empty"},
    "network": {"Network": "10.9.0.0/16", "Backend": {"Type": "udp"}},
    "nodes": {"node1": {}, "node2": {}},
}
AGENT, ROUTE, RULE = "test_agent_is_killed_and_cannot_come_back", "test_route_is_gone", "test_rule_drops_the_overlay"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the three failures, with captures; their labs are gone."""
    project = Project(tmp_path_factory.mktemp("failures"), prefix_for("bundle"))
    project.write("test_failures.py", FAILURES)
    done = project.run("--lab-pcap", f"--lab-bundles={project.directory / 'bundles'}")
    assert project.labs() == []
    assert done.outcomes == dict.fromkeys((AGENT, ROUTE, RULE), "failure"), done.out
    return done


def readme(bundle: Path) -> str:
    return (bundle / "README.txt").read_text()


def udp_packets(capture: Path, *expression: str) -> int:
    command = ["tcpdump", "-nr", str(capture), *expression]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.mark.slow
def test_agent_that_cannot_come_back_is_named_with_why(run: Run) -> None:
    bundle = run.bundle(AGENT)
    assert re.search(r"node node2: agent is (backoff|starting|running|not ready), [1-9]\d* restarts", readme(bundle))
    # The last word of every try, but the bundle may have been written in the middle of the next one.
    assert re.search(r"^error: .*8285", (bundle / "nodes/node2/agent.log").read_text(), re.MULTILINE)
    taken = [line for line in (bundle / "nodes/node2/sockets.txt").read_text().splitlines() if ":8285" in line]
    assert [line for line in taken if "python3" in line], taken
    ended = [event for event in json.loads((bundle / "events.json").read_text()) if event["reason"] == "AgentEnded"]
    assert ended[0]["object"] == "node/node2"
    assert "\nerror: " not in (bundle / "nodes/node1/agent.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "cluster", ["two_nodes", "nginx_tomcat", "dual_stack", "guestbook", "--backend=vxlan", "empty"]
)
def test_a_healthy_labs_bundle_has_no_findings(cluster: str, new_lab: NewLab, tmp_path: Path) -> None:
    options = [cluster] if cluster.startswith("--") else []
    shown: object = {"empty": NO_PODS}.get(cluster, "two_nodes" if options else cluster)
    with new_lab(shown, *options) as lab:
        assert not [ping for ping in lab.ping_all() if ping.lost]
        bundle = write_bundle(lab, tmp_path, title=cluster)
    assert (bundle.findings, bundle.problems) == ((), ())


@pytest.mark.slow
def test_missing_route_is_named_and_the_capture_shows_that_only_the_answers_are_missing(run: Run) -> None:
    bundle = run.bundle(ROUTE)
    assert "pod echo2: no default route (pods/echo2/routes.txt)" in readme(bundle)
    assert "default via" not in (bundle / "pods/echo2/routes.txt").read_text()
    assert "default via" in (bundle / "pods/shell2/routes.txt").read_text()
    status = json.loads((bundle / "status.json").read_text())
    address = next(pod["address"] for pod in status["pods"] if pod["name"] == "echo2")
    capture = bundle / "captures/node2-flannel0.pcap"
    last_try = udp_packets(capture, "dst", address, "and", "tcp[tcpflags] & tcp-syn != 0")
    answers = udp_packets(capture, "src", address, "and", "tcp[tcpflags] & tcp-syn != 0")
    assert last_try > answers


@pytest.mark.slow
def test_dropping_rule_is_quoted_with_its_counter(run: Run) -> None:
    bundle = run.bundle(RULE)
    found = re.search(
        r"node node2: table ip mine has: udp dport 8285 counter packets (\d+) bytes \d+ drop", readme(bundle)
    )
    assert found is not None, readme(bundle)
    assert int(found[1]) > 0
    assert run.findings[RULE][0].startswith("node node2: table ip mine has: udp dport 8285"), (
        "JUnit has them, this first"
    )
    arrived = udp_packets(bundle / "captures/node2-eth0.pcap", "dst", "192.168.8.102", "and", "udp", "port", "8285")
    handed_on = udp_packets(bundle / "captures/node2-flannel0.pcap", "src", "net", "10.0.0.0/16")
    assert arrived > 0
    assert handed_on > 0, "the first request went through"


@pytest.mark.slow
@pytest.mark.parametrize("test", [AGENT, ROUTE, RULE])
def test_path_and_findings_stand_in_the_report_and_the_summary(test: str, run: Run) -> None:
    section = run.out.partition(f" {test} ")[2].partition("\n____")[0]
    assert f"bundle: {run.bundle(test)}\n" in section
    assert f"bundle of test_failures.py::{test}: {run.bundle(test)}" in run.out
    assert run.bundle(test).is_relative_to(run.project / "bundles")


@pytest.mark.slow
@pytest.mark.parametrize("test", [AGENT, ROUTE, RULE])
def test_bundle_has_every_part(test: str, run: Run) -> None:
    bundle = run.bundle(test)
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    node = {"links", "addresses", "routes", "neighbours", "nft", "sockets", "bridge", "agent-metrics", "run"}
    assert {f"nodes/{name}/{part}.txt" for name in ("node1", "node2") for part in node} <= files
    assert {"status.json", "events.json", "etcd.txt", "switches.txt", "cluster.yaml", "logs/lab.log"} <= files
    assert {"logs/etcd1.log", "logs/journal.jsonl", "get/routes.json", "get/leases.json", "get/pods.json"} <= files
    assert {"nodes/node1/agent-state.json", "nodes/node1/agent.log", "pods/echo1/echo.log"} <= files
    assert {f"captures/{node}-{device}.pcap" for node in ("node1", "node2") for device in ("eth0", "flannel0")} <= files
    assert json.loads((bundle / "nodes/node1/agent-state.json").read_text().partition("\n")[2])["node"] == "node1"
    assert "overlay_peers 1" in (bundle / "nodes/node1/agent-metrics.txt").read_text()
    assert "/coreos.com/network/config" in (bundle / "etcd.txt").read_text()
    assert "overlay-agent" in (bundle / "nodes/node1/nft.txt").read_text()
    assert "FLANNEL_SUBNET=" in (bundle / "nodes/node1/run.txt").read_text()


@pytest.mark.slow
def test_bundle_of_a_lab_that_died_in_the_test_says_so_and_has_its_logs(tmp_path: Path) -> None:
    project = Project(tmp_path, prefix_for("died"))
    project.write(
        "test_died.py",
        """
        import os, signal, time
        import pytest


        @pytest.mark.lab("two_nodes")
        def test_lab_dies(lab):
            os.kill(lab.record.pid, signal.SIGKILL)
            lab.wait_until(lambda: not lab.alive, 5)
            assert lab.ping("shell1", "shell2").lost == 0
        """,
    )
    done = project.run()
    bundle = done.bundle("test_lab_dies")
    assert "does not answer" in readme(bundle)
    assert "forwarding" in (bundle / "logs/lab.log").read_text()
    assert (bundle / "logs/agent-node1.log").read_text()
    assert bundle.is_relative_to(tmp_path / ".lab-bundles"), "the default place is the project's"
    assert (tmp_path / ".lab-bundles/.gitignore").read_text() == "*\n"


@pytest.mark.slow
def test_lab_whose_supervisor_hangs_delays_its_bundle_by_only_some_seconds(tmp_path: Path) -> None:
    project = Project(tmp_path, prefix_for("hangs"))
    project.write(
        "test_hangs.py",
        """
        import os, signal
        from pathlib import Path
        import pytest


        @pytest.mark.lab("two_nodes")
        def test_supervisor_is_stopped(lab):
            children = Path(f"/proc/{lab.record.pid}/task/{lab.record.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGSTOP)
            assert False, "on purpose"
        """,
    )
    done = project.run()
    assert project.labs() == []
    assert "no answer within" in readme(done.bundle("test_supervisor_is_stopped"))
    assert (done.bundle("test_supervisor_is_stopped") / "logs/agent-node2.log").exists()


@pytest.mark.slow
def test_lab_of_a_with_statement_is_looked_into_before_it_goes(tmp_path: Path) -> None:
    project = Project(tmp_path, prefix_for("with"))
    project.write(
        "test_with.py",
        """
        import pytest

        def test_fails_inside(new_lab):
            with new_lab("two_nodes") as lab:
                assert lab.pods == {}

        @pytest.mark.xfail
        def test_expected(new_lab):
            with new_lab("two_nodes"):
                assert False
        """,
    )
    done = project.run()
    assert project.labs() == []
    assert json.loads((done.bundle("test_fails_inside") / "status.json").read_text())["state"] == "ready"
    assert "lab_bundle" not in done.properties["test_expected"]
