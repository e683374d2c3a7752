"""The plugin as a user of it sees it: fixtures, marks, options and what is said when a lab cannot be had."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.control.client import running_labs
from tests.e2e.command import Terminal, run_verb
from tests.e2e.inner_pytest import PYTEST, Project, prefix_for
from tests.e2e.lab import fresh_name

ONE_NODE = """
apiVersion: testbed/v1
kind: Cluster
metadata: {name: one}
network: {Network: 10.7.0.0/16, SubnetLen: 24, Backend: {Type: udp}}
underlay: {cidr: 192.168.8.0/24}
nodes: {node1: {}}
"""
FAILING = """
    import pytest

    @pytest.mark.lab("own.yaml")
    def test_fails(lab):
        assert lab.nodes["node1"].subnet == "nothing"
"""


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """Yield a user's project with a cluster file of its own; labs that it keeps are taken down."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[-12:].strip("-")
    project = Project(tmp_path, prefix_for(name))
    project.write("own.yaml", ONE_NODE)
    yield project
    for lab in project.labs():
        run_verb("down", "--lab", lab)


@pytest.mark.slow
def test_tests_of_a_module_share_their_lab_and_every_way_to_choose_a_cluster_works(project: Project) -> None:
    project.write("sub/near.yaml", ONE_NODE)
    project.write(
        "sub/test_choice.py",
        f'''
        from pathlib import Path
        import pytest
        import yaml

        LAB = "near.yaml"
        TEXT = """{ONE_NODE.replace(chr(10), chr(10) + " " * 8)}"""
        seen = {{}}

        def test_module_variable(lab):
            seen["variable"] = lab.name
            assert list(lab.nodes) == ["node1"]

        @pytest.mark.lab("../own.yaml")
        def test_path(lab):
            seen["path"] = lab.name

        @pytest.mark.lab("../own.yaml")
        def test_path_again(lab):
            assert lab.name == seen["path"] != seen["variable"]

        @pytest.mark.lab(yaml.safe_load(TEXT))
        def test_dict_and_two_labs_at_once_with_the_same_addresses(lab, lab_per_test):
            assert lab.name != lab_per_test.name
            assert lab.nodes["node1"].address == lab_per_test.nodes["node1"].address
            assert lab.alive and lab_per_test.alive

        @pytest.mark.parametrize("lab", [TEXT], ids=["text"], indirect=True)
        def test_parametrised(lab):
            assert lab.get("nodes")[0]["spec"]["podCIDR"].startswith("10.7.")
        ''',
    )
    done = project.run("-v")
    assert done.code == 0, done.out
    assert len(done.outcomes) == 5
    assert "test_path PASSED" in done.out, "a mark leaves a test's id alone"
    assert project.labs() == []


@pytest.mark.slow
def test_lab_answers_everything_that_is_documented(project: Project) -> None:
    project.write(
        "test_api.py",
        """
        import pytest
        import yaml
        from testbed.control.client import NoAnswer
        from testbed.errors import TestbedError
        from testbed.testing.lab_answers import CommandFailed
        from testbed.testing.waiting import NotInTime

        pytestmark = pytest.mark.lab("two_nodes")

        def test_commands(lab):
            assert lab.exec("shell1", "tr", "a-z", "A-Z", input="hello").check() == "HELLO"
            failed = lab.exec("node1", "sh", "-c", "echo out; echo err >&2; exit 3")
            assert (failed.stdout, failed.stderr, failed.exit_code) == ("out\\n", "err\\n", 3)
            with pytest.raises(CommandFailed, match="node1: sh -c .*exit code 3"):
                failed.check()
            assert lab.exec("echo1", "hostname", container="echo").stdout == "echo1\\n"
            assert len(lab.exec("node1", "head", "-c", "3000000", "/dev/zero").stdout) == 3000000
            with pytest.raises(NoAnswer, match="not done within 0.5 s .*begun"):
                lab.exec("shell1", "sh", "-c", "echo begun; sleep 30", timeout_s=0.5)
            with pytest.raises(TestbedError, match="no pod or node named nobody"):
                lab.exec("nobody", "true")
            assert "s1" in lab.script("bridge link").check()
            assert lab.script("hostname", "shell2").check() == "shell2\\n"

        def test_pings(lab):
            ping = lab.ping("shell1", "echo2", count=2)
            assert (ping.sent, ping.received, ping.lost, ping.ttl) == (2, 2, 0, 62)
            assert len(lab.ping_all()) == 12
            assert not [pair for pair in lab.ping_all() if pair.lost]
            nobody = lab.ping("shell1", "10.0.255.9")
            assert nobody.lost == 1 and nobody.error
            assert lab.ping("node1", "node2").lost == 0

        def test_requests(lab):
            address = lab.pods["echo2"].address
            response = lab.curl("shell1", f"http://{address}:8080/clientip")
            assert (response.status, response.body.strip()) == (200, lab.pods["shell1"].address)
            assert response.headers["content-type"].startswith("text/plain")
            assert lab.curl("shell1", f"http://{address}:8080/echo", "--data", "ping").body == "ping"
            refused = lab.curl("shell1", f"http://{address}:81/")
            assert refused.status == 0 and "connect" in refused.error

        def test_objects(lab):
            assert lab.status()["state"] == "ready" and lab.status()["pid"] == lab.record.pid
            assert [pod["metadata"]["name"] for pod in lab.get("pods")] == list(lab.pods)
            assert lab.get("nodes", "node2")[0]["spec"]["podCIDR"] == lab.nodes["node2"].subnet
            assert lab.describe("nodes", "node1")["Name"] == "node1"
            assert "Started" in {event["reason"] for event in lab.events()}
            assert "ready" in lab.logs("node1") and "etcd" in lab.logs("etcd1") and "forwarding" in lab.logs("lab")
            assert lab.nodes["node1"].subnet.replace("/", "-") in lab.etcdctl("get", "--prefix", "/coreos.com").check()

        def test_agents(lab):
            agent, before = lab.agent("node1"), lab.nodes["node1"]
            assert agent.state()["lease"]["subnet"] == before.subnet
            assert agent.metrics()["overlay_peers"] == 1
            agent.kill()
            lab.wait_until(lambda: lab.nodes["node1"].agent_restarts > before.agent_restarts, 5, "a new agent")
            agent.wait_ready()
            agent.restart()
            assert lab.nodes["node1"].subnet == before.subnet and agent.pid != before.agent_pid
            lab.wait_ready()

        def test_paths(lab, tmp_path):
            assert lab.check().well and lab.check().problems == {}
            trace = lab.trace("shell1", "echo2:8080")
            assert trace.answered and trace.path[0] == "shell1 eth0" and "node2 flannel0" in trace.path
            lost = lab.trace("shell1", "10.0.255.9")
            assert (lost.answered, lost.lost_at) == (False, "node1 flannel0") and lost.reasons
            with lab.capture("node1:uplink", filter="udp port 8285") as seen:
                lab.ping("shell1", "echo2")
            assert len(seen.lines) == 2 and "node1:uplink" in seen.lines[0]
            with lab.capture("all", file=tmp_path / "all.pcapng"):
                lab.ping("shell1", "echo2")
            assert (tmp_path / "all.pcapng").stat().st_size > 1000
            for words in (["nosuch"], ["node1", "udp prt"]):
                with pytest.raises(TestbedError, match="no such point|syntax error"), lab.capture(*words):
                    pass

        def test_changes(lab_per_test, tmp_path):
            lab = lab_per_test
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}
            pod["spec"] = {"containers": [{"name": "echo", "image": "echo"}]}
            assert lab.apply(pod) == {"pod/web": "created"} and lab.pods["web"].ready
            template = {"metadata": {"labels": {"app": "api"}}, "spec": pod["spec"]}
            spec = {"replicas": 1, "selector": {"matchLabels": {"app": "api"}}, "template": template}
            api = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "api"}, "spec": spec}
            (tmp_path / "both.yaml").write_text(yaml.safe_dump_all([pod, api]))
            assert lab.apply(tmp_path / "both.yaml") == {"pod/web": "unchanged", "deployment/api": "created"}
            assert lab.apply([api]) == {"deployment/api": "unchanged"}
            lab.scale("api", 3)
            assert len([name for name in lab.pods if name.startswith("api-")]) == 3
            added = lab.add_node("node3")
            assert (added.agent_state, added.peers_known) == ("ready", 2)
            assert set(lab.drain_node("node1")) == {"echo1", "shell1"} | {
                name for name in ["web"] if lab.pods[name].node == "node1"
            }
            assert not [one for one in lab.pods.values() if one.name.startswith("api-") and one.node == "node1"]
            lab.uncordon_node("node1")
            assert not [name for name in lab.delete_node("node3") if name != "web"]
            assert "node3" not in lab.nodes
            assert lab.delete("deployment/api", "pod/echo1") == {"deployment/api": "deleted", "pod/echo1": "deleted"}
            assert "echo1" not in lab.pods
            with pytest.raises(TestbedError, match="no pod named echo1"):
                lab.delete("pod/echo1")
            with pytest.raises(TestbedError, match="want KIND/NAME"):
                lab.delete("echo1")
            with pytest.raises(TestbedError, match="unknown apiVersion and kind"):
                lab.apply("kind: Pod")

        def test_waiting(lab):
            with pytest.raises(NotInTime, match=r"not within 0.2 s: an answer \\(last seen: 0\\)"):
                lab.wait_until(lambda: lab.ping("shell1", "10.0.255.9").received, 0.2, "an answer")
            with pytest.raises(NotInTime, match="last seen: TestbedError: no pod or node named nobody"):
                lab.wait_until(lambda: lab.exec("nobody", "true"), 0, "nobody")
        """,
    )
    done = project.run()
    assert done.code == 0, done.out
    assert len(done.outcomes) == 8


@pytest.mark.slow
def test_fixture_of_ones_own_can_have_labs_of_any_scope(project: Project) -> None:
    project.write(
        "test_new_lab.py",
        """
        import pytest

        @pytest.fixture(scope="session")
        def shared(new_lab):
            with new_lab("own.yaml") as lab:
                yield lab

        def test_one(shared, new_lab):
            with new_lab("own.yaml", "--no-agent", "node1") as other:
                assert other.nodes["node1"].agent_state.startswith("by hand")
            assert not other.alive and shared.alive

        def test_failure_in_a_shared_lab(shared):
            assert shared.nodes == {}
        """,
    )
    done = project.run()
    assert done.outcomes == {"test_one": "passed", "test_failure_in_a_shared_lab": "failure"}, done.out
    assert (done.bundle("test_failure_in_a_shared_lab") / "status.json").exists()
    assert project.labs() == []


def test_passing_tests_leave_nothing(project: Project) -> None:
    project.write("test_a.py", "LAB = 'own.yaml'\ndef test_a(lab): assert lab.alive\n")
    done = project.run("--lab-pcap")
    assert done.code == 0, done.out
    assert sorted(path.name for path in project.directory.iterdir()) == [
        "own.yaml",
        "pytest.ini",
        "report.xml",
        "test_a.py",
    ]
    assert "lab_bundle" not in (project.directory / "report.xml").read_text()


def test_kept_labs_stay_up_and_the_printed_commands_work(project: Project) -> None:
    project.write("test_fails.py", FAILING)
    done = project.run("--lab-keep")
    (name,) = project.labs()
    assert f"lab {name} is kept" in done.out
    commands = re.findall(r"sudo testbed (.*?)(?:;|$)", done.out, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["status", "shell", "down"]
    for command in commands:
        assert run_verb(*command.split()).code == 0
    assert project.labs() == []


@pytest.mark.slow
def test_shell_opens_in_the_lab_of_a_failed_test_and_the_run_goes_on(project: Project) -> None:
    project.write("test_fails.py", FAILING)
    words = ("--lab-shell-on-failure", "--rootdir", str(project.directory), str(project.directory))
    with Terminal(*words, program=PYTEST, extra={"TESTBED_TEST_LABS": project.prefix}) as terminal:
        terminal.expect(r"test_fails failed; this is lab (\S+)", timeout_s=60)
        terminal.expect(r"# ")
        terminal.type("ip netns exec node1 hostname -I; echo in-$TESTBED_LAB\r")
        terminal.expect(rf"in-{project.prefix}-\d+-1\r")
        terminal.type("exit\r")
        terminal.expect(r"1 failed")
        assert terminal.end(timeout_s=30) == 1
    assert project.labs() == []


@pytest.mark.slow
def test_run_pauses_at_a_failed_test_with_its_lab_running_and_its_findings(project: Project) -> None:
    project.write(
        "test_fails.py",
        """
        import pytest

        @pytest.mark.lab("two_nodes")
        def test_fails(lab):
            lab.script("ip netns exec echo2 ip route delete default").check()
            assert lab.ping("shell1", "echo2").lost == 0
        """,
    )
    words = ("--lab-pause", "--rootdir", str(project.directory), str(project.directory))
    with Terminal(*words, program=PYTEST, extra={"TESTBED_TEST_LABS": project.prefix}) as terminal:
        terminal.expect(r"test_fails failed; lab (\S+) is as the test left it", timeout_s=60)
        terminal.expect(r"pod echo2: no default route")
        terminal.expect(r"press Enter to go on: ")
        (lab,) = project.labs()
        assert run_verb("check", "--lab", lab).code == 1
        terminal.type("\r")
        terminal.expect(r"1 failed")
        assert terminal.end(timeout_s=30) == 1
    assert project.labs() == []


def test_without_a_terminal_a_pause_is_refused(project: Project) -> None:
    project.write("test_passes.py", "def test_passes(): pass")
    done = project.run("--lab-pause")
    assert (done.code, done.outcomes) == (4, {})
    assert "--lab-pause: standard input is no terminal (want a terminal, or --lab-keep)" in done.out


@pytest.mark.slow
def test_without_a_terminal_no_shell_is_waited_for(project: Project) -> None:
    project.write("test_fails.py", FAILING)
    assert project.run("--lab-shell-on-failure").outcomes == {"test_fails": "failure"}


def test_user_who_is_not_root_learns_what_to_run_and_no_test_passes(project: Project) -> None:
    project.write("test_fails.py", "def test_needs_a_lab(lab): pass\ndef test_needs_none(): pass\n")
    for path in (project.directory, *project.directory.iterdir()):
        os.chmod(path, 0o777 if path.is_dir() else 0o666)
    parents = [parent for parent in project.directory.parents if parent.stat().st_uid == 0 and parent != Path("/")]
    closed = [parent for parent in parents if not parent.stat().st_mode & 0o001]
    assert all("pytest" in parent.name for parent in closed), closed
    modes = {parent: parent.stat().st_mode for parent in closed}
    for parent in closed:
        parent.chmod(0o711)
    try:
        done = project.run(prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
    finally:
        for parent, mode in modes.items():
            parent.chmod(mode)
    assert done.code == 1
    assert done.outcomes == {"test_needs_a_lab": "error", "test_needs_none": "passed"}, done.out
    assert re.search(r"a lab needs root \(got uid 65534; want: sudo \S*python\S* -m pytest", done.out), done.out


def test_wrong_cluster_is_one_line_and_no_test_passes(project: Project) -> None:
    project.write(
        "test_wrong.py",
        """
        import pytest

        @pytest.mark.lab("missing.yaml")
        def test_file(lab_per_test): pass

        @pytest.mark.lab("two_nodse")
        def test_name(lab_per_test): pass

        @pytest.mark.lab()
        def test_mark(lab_per_test): pass

        @pytest.mark.lab({"kind": "Cluster"})
        def test_spec(lab_per_test): pass
        """,
    )
    done = project.run()
    assert set(done.outcomes.values()) == {"error"}
    assert re.search(r"no such cluster file \(got missing.yaml; want a path relative to /", done.out)
    assert 'did you mean "two_nodes"' in done.out
    assert "@pytest.mark.lab: takes one argument" in done.out
    assert re.search(r"error: .*\.yaml:1:1: nodes is missing", done.out), done.out
    assert "Traceback" not in done.out
    assert "During handling" not in done.out


def test_file_that_cannot_be_read_is_reported_as_by_pytest_alone(project: Project) -> None:
    project.write("test_typo.py", "def test_nothing(lab: Labb): pass")
    done = project.run()
    assert "NameError: name 'Labb' is not defined" in done.out
    assert "INTERNALERROR" not in done.out
    assert "user_properties" not in done.out


@pytest.mark.slow
def test_lab_that_does_not_get_ready_leaves_a_bundle_and_is_taken_down(project: Project) -> None:
    project.write("own.yaml", ONE_NODE + "agent: {command: [/bin/false]}\n")
    project.write(
        "test_never.py",
        """
        def test_never(new_lab):
            with new_lab("own.yaml", "--timeout", "1"):
                assert False, "not reached"
        """,
    )
    done = project.run()
    assert done.outcomes == {"test_never": "failure"}
    assert "agents: not ready after 1 s" in done.out
    bundle = done.bundle("test_never")
    assert f"bundle: {bundle}" in done.out
    assert re.search(r"node node1: agent is (backoff|running|starting|not ready)", (bundle / "README.txt").read_text())
    assert project.labs() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_run_takes_its_labs_down(number: int, project: Project) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("what is started below nohup ignores it too")
    project.write(
        "test_long.py", "import time\nLAB = 'own.yaml'\ndef test_long(lab): print('running'); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [*PYTEST, "-s"], cwd=project.directory, env=project.environment, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert any("running" in line for line in process.stdout)
        assert project.labs()
        process.send_signal(number)
        assert process.wait(20) == 2
    assert project.labs() == []


@pytest.mark.slow
def test_lab_of_ones_own_is_found_by_name_without_pytest(project: Project) -> None:
    name = fresh_name("found")
    script = f"from testbed.testing.lab_handle import find; print(find('{name}').nodes['node1'].agent_state)"
    try:
        assert run_verb("up", str(project.directory / "own.yaml"), "--lab", name).code == 0
        python = PYTEST[0]
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, cwd="/", check=True)
        assert done.stdout == "ready\n"
    finally:
        run_verb("down", "--lab", name)
    assert name not in [lab.name for lab in running_labs()]


DROPPING = """
import pytest


@pytest.mark.lab("two_nodes")
def test_overlay_port_is_open(lab_per_test):
    rules = "add table ip mine; add chain ip mine in { type filter hook input priority 0; }; "
    rules += "add rule ip mine in udp dport 8285 counter drop"
    lab_per_test.exec("node2", "nft", rules).check()
    assert lab_per_test.ping("shell1", "echo2").lost == 0
"""
"""The test whose failure docs/testing.md shows."""


@pytest.mark.slow
def test_examples_of_the_documentation_do_what_it_says(project: Project) -> None:
    text = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
    first, own = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(first.splitlines()) <= 10
    for name, code in (("first", first), ("own", own), ("failing", DROPPING)):
        (project.directory / f"test_{name}.py").write_text(code)
    done = project.run()
    assert done.outcomes.pop("test_overlay_port_is_open") == "failure"
    assert set(done.outcomes.values()) == {"passed"}, done.out
    (finding,) = done.findings["test_overlay_port_is_open"]
    assert re.fullmatch(
        r"node node2: table ip mine has: udp dport 8285 counter packets 1 bytes \d+ drop \(nodes/node2/nft.txt\)",
        finding,
    )
    assert f"test_overlay_port_is_open/{done.bundle('test_overlay_port_is_open').name}\n{finding}\n" in done.out
