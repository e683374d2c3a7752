import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from testbed.errors import NoSubnetYet
from testbed.pods.container_log import LOG_BYTES
from testbed.pods.kept_logs import log_of_deleted
from testbed.pods.pod import Pod
from testbed.pods.pod_container import ContainerNotRunning, PodContainer, ShimProcess
from testbed.pods.pod_network import BridgeNetwork, host_end
from testbed.processes import namespaces as ns
from tests.netns.pods import (
    BRIDGE_MAC,
    SLEEP,
    PodNode,
    catches_term,
    ended,
    execute,
    host_mounts,
    output,
    shell,
    started,
    wait_until,
)

pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PodNode]:
    with PodNode(tmp_path) as made:
        yield made


def test_a_pod_has_its_address_route_neighbour_and_mtu(node: PodNode) -> None:
    pod = started(node.pod("nginx", shell("main", SLEEP)))
    assert pod.address == "10.0.46.2"
    addresses = output(pod, "main", "ip -o address show dev eth0; ip link show eth0")
    assert "inet 10.0.46.2/24 brd 10.0.46.255 scope global eth0" in addresses
    assert "mtu 1472" in addresses
    assert "0a:58:0a:00:2e:02" in addresses
    assert output(pod, "main", "ip route").splitlines()[0].strip() == "default via 10.0.46.1 dev eth0"
    assert f"10.0.46.1 dev eth0 lladdr {BRIDGE_MAC} PERMANENT" in output(pod, "main", "ip neigh")
    assert "127.0.0.1/8" in output(pod, "main", "ip address show lo")


def test_pods_of_a_node_and_the_node_reach_each_other(node: PodNode) -> None:
    first, second = (started(node.pod(name, shell("main", SLEEP))) for name in ("first", "second"))
    for address in (second.address, "10.0.46.1"):
        assert "0% packet loss" in output(first, "main", f"ping -c1 -W2 {address}")


def test_pods_of_one_name_in_two_namespaces_share_nothing(node: PodNode) -> None:
    mount = {"volumeMounts": [{"name": "own", "mountPath": "/own"}]}
    volumes = [{"name": "own", "emptyDir": {}}]
    first, second = (
        started(node.pod(name, shell("main", SLEEP, **mount), volumes=volumes)) for name in ("web", "shop/web")
    )
    assert first.address != second.address
    assert first.host_end != second.host_end
    assert {first.host_end, second.host_end} <= {link.name for link in node.kernel.links()}
    assert "0% packet loss" in output(first, "main", f"ping -c1 -W2 {second.address}")
    output(first, "main", "echo first > /own/page")
    assert output(second, "main", "ls /own") == ""
    assert first.containers["main"].log != second.containers["main"].log
    assert first.name == "web"
    assert second.name == "shop/web"
    first.delete(0)
    assert "inet " in output(second, "main", "ip address show dev eth0"), "one ends, the other stays"
    assert log_of_deleted(node.logs, "web", "main") is not None
    assert log_of_deleted(node.logs, "shop_web", "main") is None
    assert second.host_end in {link.name for link in node.kernel.links()}


def test_containers_of_a_pod_meet_on_localhost_and_on_a_volume_and_see_each_other(node: PodNode) -> None:
    mount = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    listen = "import http.server as h; h.HTTPServer(('127.0.0.1', 8000), h.SimpleHTTPRequestHandler).serve_forever()"
    server = {
        "name": "server",
        "image": "shell",
        "command": ["python3", "-c", listen],
        "workingDir": "/shared",
        **mount,
    }
    pod = started(
        node.pod(
            "pair",
            server,
            shell("client", SLEEP, **mount),
            volumes=[{"name": "shared", "emptyDir": {}}],
            shareProcessNamespace=True,
        )
    )
    output(pod, "client", "echo from-client > /shared/page")
    wait_until(lambda: execute(pod, "client", "curl -sf http://localhost:8000/").returncode == 0, "the server listens")
    assert output(pod, "client", "curl -sf http://localhost:8000/page") == "from-client\n"
    processes = output(pod, "client", "ps -e -o pid=,comm=,args=")
    assert processes.splitlines()[0].split()[:2] == ["1", "pause"]
    assert "SimpleHTTPRequestHandler" in processes


def test_without_a_shared_process_namespace_the_command_is_pid_1_and_alone(node: PodNode) -> None:
    pod = started(node.pod("alone", shell("one", SLEEP), shell("two", SLEEP)))
    processes = output(pod, "one", "ps -e -o pid=,args=").splitlines()
    assert processes[0].split()[:2] == ["1", "sh"]
    assert len(processes) <= 4  # the command, its sleep, this shell, ps
    assert pod.pause_pid is not None
    assert os.readlink(f"/proc/{pod.pause_pid}/ns/pid") == os.readlink("/proc/self/ns/pid")


def test_pause_reaps_two_hundred_orphans_of_a_shared_namespace(node: PodNode) -> None:
    pod = started(node.pod("orphans", shell("main", SLEEP), shareProcessNamespace=True))
    output(pod, "main", "i=0; while [ $i -lt 200 ]; do (sleep 4 >/dev/null 2>&1 &); i=$((i+1)); done")
    seen = output(pod, "main", "ps -e -o ppid=,comm= | awk '$1 == 1 && $2 == \"sleep\"' | wc -l")
    assert int(seen) > 0, "orphans were given to pause"
    count = "ps -e -o stat=,comm= | grep -c -e '^Z' -e 'sleep$' || true"
    wait_until(lambda: int(output(pod, "main", count)) <= 1, "0 zombies, 0 orphans left", timeout_s=60)


def test_a_killed_container_is_restarted_and_keeps_its_address(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP), shell("other", SLEEP)))
    before, other = pod.containers["main"].pid, pod.containers["other"].pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pod.status().restarts == 1 and pod.status().ready, "restarted")
    status = pod.status()
    assert pod.containers["main"].pid not in (None, before)
    assert pod.containers["other"].pid == other, "the other container lives on"
    assert (status.address, status.containers[0].exit_code) == ("10.0.46.2", 137)
    assert ("pod/web", "BackOff") in node.events


def test_orphans_of_a_killed_container_end_with_it_in_a_shared_namespace(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", "sleep 4321 & sleep 4321 & wait"), shareProcessNamespace=True))
    main = pod.containers["main"].pid
    assert main is not None
    children = Path(f"/proc/{main}/task/{main}/children")
    wait_until(lambda: len(children.read_text().split()) == 2, "it has children")
    orphans = [int(pid) for pid in children.read_text().split()]
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: all(ended(pid) for pid in orphans), "orphans ended")


@pytest.mark.slow
def test_a_container_whose_shim_is_killed_is_cleaned_up_and_restarted(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", "sleep 4321 & wait"), shareProcessNamespace=True))
    main = pod.containers["main"].pid
    assert main is not None
    children = Path(f"/proc/{main}/task/{main}/children")
    wait_until(lambda: bool(children.read_text().split()), "it has a child")
    family = [main, *(int(pid) for pid in children.read_text().split())]
    shim = int(Path(f"/proc/{main}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(shim, signal.SIGKILL)
    wait_until(lambda: all(ended(pid) for pid in family), "everything of it ended")
    wait_until(lambda: pod.status().restarts == 1 and pod.status().ready, "restarted")


@pytest.mark.parametrize("shared", [True, False])
def test_a_pod_whose_pause_is_killed_is_built_again_with_its_address(node: PodNode, shared: bool) -> None:
    neighbour = started(node.pod("neighbour", shell("main", SLEEP)))
    pod = started(node.pod("web", shell("main", SLEEP), shareProcessNamespace=shared))
    pause, main = pod.pause_pid, pod.containers["main"].pid
    assert pause is not None
    assert main is not None
    os.kill(pause, signal.SIGKILL)
    assert pod.status().address == "10.0.46.3", "its address stays reserved"
    wait_until(lambda: ended(main), "its container ended")
    wait_until(lambda: pod.pause_pid not in (None, pause) and pod.status().ready, "built again")
    assert pod.address == "10.0.46.3"
    assert "0% packet loss" in output(neighbour, "main", "ping -c1 -W2 10.0.46.3")
    assert ("pod/web", "SandboxChanged") in node.events
    assert neighbour.status().restarts == 0


def test_delete_leaves_nothing_and_frees_the_address(node: PodNode) -> None:
    links = {link.name for link in node.kernel.links()}
    volume = {"volumes": [{"name": "scratch", "emptyDir": {}}]}
    mount = {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
    pod = started(node.pod("web", shell("main", SLEEP, **mount), **volume))
    output(pod, "main", "touch /scratch/file")
    pids = [pod.pause_pid, pod.containers["main"].pid]
    assert {link.name for link in node.kernel.links()} == links | {host_end("web")}
    pod.delete()
    pod.delete()
    assert {link.name for link in node.kernel.links()} == links
    assert all(pid is not None and ended(pid) for pid in pids)
    assert not (node.rundir / "pods" / "web").exists()
    assert node.ipam.reservations() == {}
    assert not (node.logs / "pods/web").exists()
    assert log_of_deleted(node.logs, "web", "main") is not None, "the end of the log stays"
    assert pod.pause_pid is None


@pytest.mark.slow
def test_many_pods_come_and_go_and_leave_nothing(node: PodNode) -> None:
    def counts() -> dict[str, int]:
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "links": len(node.kernel.links()),
            "mounts": len(host_mounts()),
            "reservations": len(node.ipam.reservations()),
            "directories": len(list((node.rundir / "pods").iterdir())),
        }

    started(node.pod("first", shell("main", SLEEP))).delete()
    before = counts()
    for _ in range(2):
        pods = [node.pod(f"pod-{n}", shell("main", SLEEP), shareProcessNamespace=n % 2 == 0) for n in range(8)]
        with ThreadPoolExecutor(4) as workers:
            list(workers.map(started, pods))
            assert len({pod.address for pod in pods}) == len(pods)
            list(workers.map(lambda pod: pod.delete(), pods))
        assert counts() == before


def test_a_container_cannot_reach_the_node_through_the_pause_process(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP), shareProcessNamespace=True))
    result = execute(pod, "main", "ls /proc/1/root/")
    assert (result.stdout, "Permission denied" in result.stderr) == ("", True)


def test_a_stopped_pod_keeps_its_address_for_the_next_start(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP)))
    wait_until(lambda: catches_term(pod.containers["main"].pid), "the shell has set its trap")
    pod.stop()
    started(node.pod("rival", shell("main", SLEEP)))
    assert started(pod).address == "10.0.46.2"
    assert pod.status().restarts == 0


def test_a_container_that_ignores_term_is_killed_after_the_grace(node: PodNode) -> None:
    pod = started(node.pod("stubborn", shell("main", "trap '' TERM; while :; do sleep 1; done")))
    main = pod.containers["main"].pid
    assert main is not None
    pod.stop(grace_s=0.3)
    assert ended(main)


def test_a_long_grace_period_delays_neither_the_node_nor_a_stop_without_one(node: PodNode) -> None:
    pod = started(node.pod("stubborn", shell("main", "trap '' TERM; touch /tmp/deaf; while :; do sleep 1; done")))
    wait_until(lambda: execute(pod, "main", "test -e /tmp/deaf").returncode == 0, "it ignores TERM")
    with ThreadPoolExecutor(4) as others:
        slow = others.submit(pod.stop, 600.0)
        wait_until(lambda: pod.status().terminating, "the first stop has begun")
        others.submit(pod.repair_link).result(30)
        others.submit(pod.follow_configs).result(30)
        assert not slow.done()
        others.submit(pod.stop, 0.0).result(30)
        slow.result(30)


def test_a_pod_that_is_being_deleted_is_not_started_again(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP)))
    pod.mark_terminating()
    pod.delete(grace_s=0.0)
    pod.start()
    assert pod.pause_pid is None
    assert node.ipam.reservations() == {}


@pytest.mark.row("B43")
def test_a_missing_program_is_a_crash_loop_with_code_127_that_says_what_is_missing(node: PodNode) -> None:
    pod = node.pod("broken", {"name": "main", "image": "shell", "command": ["/no/such/program"]})
    pod.start()
    wait_until(lambda: pod.status().restarts >= 1, "tried again")
    wait_until(lambda: pod.status().state == "CrashLoopBackOff", "crash loop")
    status = pod.status()
    assert not status.ready
    assert status.containers[0].exit_code == 127
    assert "/no/such/program: no such program" in status.why_not_ready
    assert "error: /no/such/program: no such program" in pod.containers["main"].log.read_text()


def test_a_container_that_cannot_be_started_at_first_is_started_later(
    node: PodNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = PodContainer._start_shim, list[str]()

    def refuse_once(container: PodContainer, inherited: tuple[int, int]) -> ShimProcess:
        if not refused:
            refused.append(container.name)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return start(container, inherited)

    monkeypatch.setattr(PodContainer, "_start_shim", refuse_once)
    pod = node.pod("late", shell("main", SLEEP))
    pod.start()
    assert os.strerror(errno.EAGAIN) in pod.status().why_not_ready
    wait_until(lambda: pod.status().ready, "it runs", 20)
    status = pod.status()
    assert (status.restarts, status.why_not_ready, refused) == (0, "", ["main"])
    assert ("pod/late", "Failed") in node.events


@pytest.mark.row("B43")
def test_a_file_that_cannot_be_executed_is_code_126(node: PodNode) -> None:
    pod = node.pod("broken", {"name": "main", "image": "shell", "command": ["/etc/passwd"]}, restartPolicy="Never")
    pod.start()
    wait_until(lambda: pod.status().phase == "Failed", "ended")
    assert pod.status().containers[0].exit_code == 126


@pytest.mark.parametrize(
    ("policy", "script", "phase", "state"),
    [("Never", "exit 3", "Failed", "Error"), ("OnFailure", "exit 0", "Succeeded", "Completed")],
)
@pytest.mark.row("B43")
def test_the_restart_policy_decides_about_a_restart(
    node: PodNode, policy: str, script: str, phase: str, state: str
) -> None:
    pod = node.pod("job", shell("main", script), restartPolicy=policy)
    pod.start()
    wait_until(lambda: pod.status().phase == phase, phase)
    assert (pod.status().state, pod.status().restarts) == (state, 0)


def test_a_pod_is_ready_when_its_port_is_open(node: PodNode) -> None:
    late = (
        "import http.server as h, os, time\n"
        "while not os.path.exists('/tmp/go'): time.sleep(0.01)\n"
        "h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    (node.rundir / "late").mkdir()
    (node.rundir / "late" / "echo_server.py").write_text(late)
    # A volume in place of the recipe's own server: one that opens its port when it is told to.
    server = {"name": "main", "image": "echo", "volumeMounts": [{"name": "late", "mountPath": "/opt/echo"}]}
    pod = node.pod("web", server, volumes=[{"name": "late", "hostPath": {"path": f"{node.rundir}/late"}}])
    pod.start()
    wait_until(lambda: pod.status().containers[0].state == "running", "it runs")
    assert not pod.status().ready
    assert "does not listen" in pod.status().why_not_ready
    output(pod, "main", "touch /tmp/go")
    wait_until(lambda: pod.status().ready, "ready")


@pytest.mark.row("B43")
def test_a_flood_of_output_is_capped_and_the_newest_kept(node: PodNode) -> None:
    script = "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the-end; " + SLEEP
    pod = started(node.pod("noisy", shell("main", script)))
    log = pod.containers["main"].log
    wait_until(lambda: b"the-end" in log.read_bytes()[-100:], "100 MB written", timeout_s=90)
    kept = [path.stat().st_size for path in log.parent.glob("main.log*")]
    assert LOG_BYTES / 3 < sum(kept) <= LOG_BYTES


def test_exec_passes_streams_exit_code_environment_and_directory(node: PodNode) -> None:
    container = shell("main", SLEEP, env=[{"name": "COLOUR", "value": "green"}], workingDir="/var")
    pod = started(node.pod("web", container))
    result = execute(pod, "main", "echo $COLOUR; pwd; hostname; echo $HOSTNAME; echo oops >&2; exit 5")
    assert (result.returncode, result.stdout, result.stderr) == (5, "green\n/var\nweb\nweb\n", "oops\n")
    fed = subprocess.run(pod.exec_argv("main", ["cat"]), input=b"hello", capture_output=True, check=True, timeout=60)
    assert fed.stdout == b"hello"
    assert execute(pod, "main", "nosuchprogram").returncode == 127


def test_exec_with_a_terminal_controls_it(node: PodNode) -> None:
    pod = started(node.pod("web", shell("main", SLEEP)))
    ours, theirs = os.openpty()
    try:
        argv = pod.exec_argv("main", ["sh", "-c", "echo yes > /dev/tty; tty -s && exit 4"], tty=True)
        code = subprocess.run(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, timeout=60
        ).returncode
        said = b""
        while not said.endswith(b"\n"):  # the kernel hands a line over in pieces
            said += os.read(ours, 100)
        assert (code, said) == (4, b"yes\r\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_exec_into_a_stopped_container_is_refused(node: PodNode) -> None:
    pod = node.pod("web", shell("main", SLEEP))
    with pytest.raises(ContainerNotRunning, match="container main of pod web is not running"):
        pod.exec_argv("main", ["true"])
    with pytest.raises(KeyError):
        pod.exec_argv("nope", ["true"])


def test_a_pod_that_cannot_be_built_leaves_nothing_but_its_reservation(node: PodNode) -> None:
    node.kernel.delete_link(node.bridge, "test")
    links = node.kernel.links()
    pod = node.pod("web", shell("main", SLEEP))
    with pytest.raises(OSError, match="node1 has no bridge docker0"):
        pod.start()
    assert node.kernel.links() == links
    assert pod.pause_pid is None
    assert list(node.ipam.reservations().values()) == ["web"]
    assert not pod.status().ready


def test_a_pod_whose_node_loses_its_subnet_while_it_is_linked_is_built_again(
    node: PodNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = started(node.pod("web", shell("main", SLEEP)))
    pause = pod.pause_pid
    assert pause is not None
    lost = threading.Event()
    lost.set()

    def mtu(_: PodNode) -> int:
        if lost.is_set():
            raise NoSubnetYet("node1 has no subnet yet")
        return 1472

    monkeypatch.setattr(PodNode, "overlay_mtu", property(mtu))
    os.kill(pause, signal.SIGKILL)
    wait_until(lambda: "no subnet yet" in pod.sandbox.failure, "the pod says why it is not linked")
    lost.clear()
    wait_until(lambda: pod.pause_pid not in (None, pause) and pod.status().ready, "built again")
    assert pod.address == "10.0.46.2"


def test_a_full_subnet_is_reported_in_words(node: PodNode) -> None:
    node.subnet = IPv4Network("10.0.46.0/30")
    node.pod("first", shell("main", SLEEP)).sandbox.reserve_address()
    with pytest.raises(OSError, match=r"pod second: subnet 10\.0\.46\.0/30 has no free pod address"):
        node.pod("second", shell("main", SLEEP)).start()


def test_ip_netns_knows_the_pod_while_it_lives(node: PodNode, tmp_path: Path) -> None:
    """In a mount namespace of its own, because the name is a mount."""
    pod = node.pod("web", shell("main", SLEEP))
    names = tmp_path / "netns"

    def visit() -> tuple[int, int, list[str]]:
        ns.unshare(ns.CLONE_NEWNS)
        ns.make_mounts_private()
        named = Pod(pod.manifest, node, BridgeNetwork(node, node.ipam), netns_directory=names)
        named.start()
        inode = (names / "web").stat().st_ino
        pause = os.stat(f"/proc/{named.pause_pid}/ns/net").st_ino
        named.delete(0.0)
        return inode, pause, os.listdir(names)

    inode, pause, left = ns.in_new_thread(visit)
    assert inode == pause
    assert left == []
