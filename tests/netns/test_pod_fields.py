"""Fields of pods as their containers see them: variables of the pod's own fields, host aliases, startup probes."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from testbed.cluster.manifest import PodManifest
from testbed.pods.pod import Pod
from tests.netns.pods import SLEEP, PodNode, catches_term, execute, output, shell, started, wait_until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodNode]:
    with PodNode(tmp_path_factory.mktemp("node")) as made:
        yield made


def of_field(name: str, path: str) -> dict[str, object]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def test_variables_have_the_values_of_the_pod_s_fields(node: PodNode) -> None:
    env = [
        of_field("NAME", "metadata.name"),
        of_field("NAMESPACE", "metadata.namespace"),
        of_field("IP", "status.podIP"),
        of_field("HOST", "status.hostIP"),
        of_field("APP", "metadata.labels['app']"),
        {"name": "BOTH", "value": "$(NAME) at $(IP)"},
    ]
    pod = started(node.pod("fields", shell("c", SLEEP, env=env)))
    assert output(pod, "c", 'echo "$NAME $NAMESPACE $IP $HOST <$APP> $BOTH"') == (
        f"fields default {pod.address} 127.0.0.1 <> fields at {pod.address}\n"
    )


def labelled(pod: Pod, **labels: str) -> PodManifest:
    """Return the pod's manifest with these labels, as `apply` would pass it."""
    metadata = pod.manifest.metadata.model_copy(update={"labels": labels})
    return pod.manifest.model_copy(update={"metadata": metadata})


def test_files_of_the_pod_s_fields_follow_its_labels_and_variables_its_next_run(node: PodNode) -> None:
    fields = [{"path": name, "fieldRef": {"fieldPath": f"metadata.{name}"}} for name in ("labels", "name", "uid")]
    cpu = {"resource": "limits.cpu", "containerName": "c", "divisor": "1m"}
    volumes = [
        {"name": "info", "downwardAPI": {"items": fields}},
        {
            "name": "more",
            "projected": {
                "sources": [{"downwardAPI": {"items": [{"path": "cpu", "resourceFieldRef": cpu}, fields[0]]}}]
            },
        },
    ]
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("info", "more")]
    mounts.append({"name": "info", "mountPath": "/etc/labels", "subPath": "labels"})
    env = [of_field("APP", "metadata.labels['app']"), of_field("ID", "metadata.uid")]
    container = shell("c", SLEEP, env=env, volumeMounts=mounts, resources={"limits": {"cpu": "250m"}})
    pod = node.pod("info", container, volumes=volumes)
    pod.relabel(labelled(pod, app="web", tier="front"))
    started(pod)
    look = "cat /info/labels; echo; cat /info/name; echo; cat /info/uid; echo; cat /more/cpu"
    assert output(pod, "c", look) == 'app="web"\ntier="front"\ninfo\nuid-of-info\n250'
    assert (
        output(pod, "c", "ls -A /more | grep -v '^[.][.]2'; echo $APP $ID") == "..data\ncpu\nlabels\nweb uid-of-info\n"
    )
    assert "Read-only file system" in execute(pod, "c", "echo x > /info/labels").stderr
    before = pod.containers["c"].pid
    pod.relabel(labelled(pod, app="shop"))
    assert output(pod, "c", "cat /info/labels /more/labels; echo; echo $APP") == 'app="shop"app="shop"\nweb\n'
    # A file that is mounted by subPath stays as it was, as in Kubernetes.
    assert output(pod, "c", "cat /etc/labels") == 'app="web"\ntier="front"'
    assert (pod.containers["c"].pid, pod.status().restarts) == (before, 0)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: pod.status().restarts == 1 and pod.status().ready, "it runs again", 60)
    assert output(pod, "c", "echo $APP") == "shop\n"


def test_host_aliases_are_lines_of_every_container_s_hosts(node: PodNode) -> None:
    aliases = [{"ip": "10.1.2.3", "hostnames": ["foo.remote", "bar"]}]
    pod = started(node.pod("aliases", shell("a", SLEEP), shell("b", SLEEP), hostAliases=aliases))
    for container in ("a", "b"):
        assert output(pod, container, "tail -1 /etc/hosts; getent hosts bar") == (
            "10.1.2.3 foo.remote bar\n10.1.2.3        foo.remote bar\n"
        )


def test_other_probes_wait_until_the_startup_probe_has_succeeded(node: PodNode) -> None:
    # On a busy machine a command takes longer than a probe's usual second.
    probe = {"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "timeoutSeconds": 20}
    container = shell(
        "c",
        SLEEP,
        startupProbe={**probe, "failureThreshold": 60},
        livenessProbe={**probe, "failureThreshold": 1},
    )
    pod = node.pod("slow", container)
    pod.start()
    wait_until(lambda: pod.containers["c"].pid is not None, "it runs")
    wait_until(lambda: node.events.count(("pod/slow", "Unhealthy")) >= 1, "the startup probe has failed")
    assert not pod.status().ready
    output(pod, "c", "touch /tmp/up")
    wait_until(lambda: pod.status().ready, "the startup probe has succeeded", 30)
    assert pod.status().restarts == 0


def test_a_container_that_never_starts_up_is_restarted(node: PodNode) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    pod = node.pod("never", shell("c", SLEEP, startupProbe=probe), terminationGracePeriodSeconds=1)
    pod.start()
    wait_until(lambda: pod.status().restarts > 0, "it is restarted", 60)
    assert ("pod/never", "Killing") in node.events


def test_init_containers_run_one_after_the_other_before_the_containers(node: PodNode) -> None:
    mount = [{"name": "v", "mountPath": "/v"}]
    first = shell("first", "until test -e /v/go; do sleep 0.05; done; echo first >> /v/order", volumeMounts=mount)
    second = shell("second", "cat /v/order && echo second >> /v/order", volumeMounts=mount)
    last = shell("c", f"echo last >> /v/order; {SLEEP}", volumeMounts=mount)
    pod = node.pod("ordered", last, initContainers=[first, second], volumes=[{"name": "v", "emptyDir": {}}])
    pod.start()
    assert pod.status().state == "Init:0/2"
    assert pod.containers["c"].pid is None
    (node.rundir / "pods/ordered/volumes/v/go").touch()
    wait_until(lambda: pod.status().ready, "pod ready")
    assert output(pod, "c", "cat /v/order") == "first\nsecond\nlast\n"
    assert pod.init_containers["second"].log.read_text() == "first\n"
    assert (pod.status().state, pod.status().restarts) == ("Running", 0)


def test_an_init_container_that_fails_is_tried_again_and_named(node: PodNode) -> None:
    mount = [{"name": "v", "mountPath": "/v"}]
    failing = shell("prepare", "test -e /v/now", volumeMounts=mount)
    pod = node.pod(
        "failing", shell("c", SLEEP), initContainers=[failing], volumes=[{"name": "v", "hostPath": {"path": "/run"}}]
    )
    pod.start()
    wait_until(lambda: pod.status().state == "Init:CrashLoopBackOff", "it has failed")
    assert "init container prepare" in pod.status().why_not_ready
    assert pod.containers["c"].pid is None
    other = started(
        node.pod(
            "helper",
            shell("c", f"touch /v/now; {SLEEP}", volumeMounts=mount),
            volumes=[{"name": "v", "hostPath": {"path": "/run"}}],
        )
    )
    wait_until(lambda: pod.status().ready, "the next try has ended well", 30)
    other.delete(0.0)
    pod.delete(0.0)


def test_a_pod_that_is_deleted_while_it_waits_is_gone(node: PodNode) -> None:
    pod = node.pod("waiting", shell("c", SLEEP), initContainers=[shell("forever", SLEEP)])
    pod.start()
    wait_until(lambda: pod.init_containers["forever"].pid is not None, "the init container runs")
    pod.delete(0.0)
    assert pod.status().pause_pid is None
    assert pod.containers["c"].pid is None


def test_after_its_sandbox_died_a_pod_is_initialised_again(node: PodNode) -> None:
    mount = [{"name": "v", "mountPath": "/v"}]
    init = shell("count", "echo x >> /v/count", volumeMounts=mount)
    container = shell("c", SLEEP, volumeMounts=mount)
    pod = started(node.pod("again", container, initContainers=[init], volumes=[{"name": "v", "emptyDir": {}}]))
    pause = pod.pause_pid
    assert pause is not None
    os.kill(pause, signal.SIGKILL)
    wait_until(lambda: pod.pause_pid not in (None, pause) and pod.status().ready, "it is ready again", 60)
    assert output(pod, "c", "cat /v/count") == "x\nx\n"


def test_pre_stop_runs_before_term_and_within_the_grace_period(node: PodNode) -> None:
    mount = [{"name": "v", "mountPath": "/v"}]
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.5; echo stop >> /v/log"]}}}
    script = "trap 'echo term >> /v/log; exit 0' TERM; while :; do sleep 1000 & wait $!; done"
    leaving = shell("c", script, volumeMounts=mount, lifecycle=hook)
    volumes = [{"name": "v", "hostPath": {"path": "/run/hooks", "type": "DirectoryOrCreate"}}]
    reader = started(node.pod("reader", shell("c", SLEEP, volumeMounts=mount), volumes=volumes))
    pod = started(node.pod("leaving", leaving, volumes=volumes, terminationGracePeriodSeconds=30))
    wait_until(lambda: catches_term(pod.containers["c"].pid), "it handles TERM")
    pod.delete()
    assert output(reader, "c", "cat /v/log") == "stop\nterm\n"


def test_pre_stop_runs_before_the_term_of_each_run_whose_liveness_probe_failed(node: PodNode) -> None:
    mount = [{"name": "v", "mountPath": "/v"}]
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo stop >> /v/log"]}}}
    # It fails from the moment in which TERM is handled.
    command = {"exec": {"command": ["sh", "-c", "! test -e /v/begun"]}}
    probe = {**command, "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 1}
    trap = "trap 'rm /v/begun; echo term >> /v/log; exit 0' TERM; touch /v/begun"
    script = f"{trap}; while :; do sleep 1000 & wait $!; done"
    failing = shell("c", script, volumeMounts=mount, lifecycle=hook, livenessProbe=probe)
    volumes = [{"name": "v", "hostPath": {"path": "/run/probed", "type": "DirectoryOrCreate"}}]
    reader = started(node.pod("probed-reader", shell("c", SLEEP, volumeMounts=mount), volumes=volumes))
    pod = node.pod("probed", failing, volumes=volumes, terminationGracePeriodSeconds=30)
    pod.start()
    twice = "stop\nterm\nstop\nterm\n"
    wait_until(lambda: output(reader, "c", "touch /v/log; cat /v/log").startswith(twice), "two runs have ended", 60)
    pod.delete(0.0)


def test_a_container_whose_post_start_fails_is_restarted(node: PodNode) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 3"]}}}
    pod = node.pod("unlucky", shell("c", SLEEP, lifecycle=hook), terminationGracePeriodSeconds=1)
    pod.start()
    wait_until(lambda: pod.status().restarts > 0, "it is restarted", 60)
    assert ("pod/unlucky", "FailedPostStartHook") in node.events
    why = "c: CrashLoopBackOff (postStart: sh exited with 3: no)"
    wait_until(lambda: pod.status().why_not_ready == why, "the handler is named", 60)


def test_post_start_runs_in_the_container(node: PodNode) -> None:
    hook = {"postStart": {"exec": {"command": ["touch", "/tmp/begun"]}}}
    pod = started(node.pod("lucky", shell("c", SLEEP, lifecycle=hook), hostname="web", subdomain="all"))
    wait_until(lambda: execute(pod, "c", "test -e /tmp/begun").returncode == 0, "the handler has run")
    assert output(pod, "c", "hostname -f") == "web.all.default.svc.cluster.local\n"
    assert pod.status().restarts == 0


def test_a_container_is_ready_once_its_post_start_is_over(node: PodNode) -> None:
    script = "touch /tmp/begun; until test -e /tmp/may-end; do sleep 0.05; done"
    hook = {"postStart": {"exec": {"command": ["sh", "-c", script]}}}
    pod = node.pod("patient", shell("c", SLEEP, lifecycle=hook))
    pod.start()
    wait_until(lambda: pod.containers["c"].pid is not None, "it runs", 60)
    wait_until(lambda: execute(pod, "c", "test -e /tmp/begun").returncode == 0, "the handler has begun")
    for _ in range(20):
        assert pod.status().why_not_ready == "c is running its postStart handler"
        time.sleep(0.05)
    assert execute(pod, "c", "touch /tmp/may-end").returncode == 0
    wait_until(lambda: pod.status().ready, "it is ready")
    seen = []
    first = pod.containers["c"].pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: pod.status().restarts > 0, "it has ended")

    def waits_again() -> bool:
        seen.append(pod.status())
        return seen[-1].why_not_ready == "c is running its postStart handler"

    wait_until(waits_again, "the handler of the next run", 60)
    assert not any(status.ready for status in seen)


def test_the_handler_of_a_run_that_has_ended_does_not_end_the_next_run(node: PodNode) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "test -e /v/second || sleep 30"]}}}
    script = f"test -e /v/first && touch /v/second; touch /v/first; test -e /v/second || exit 1; {SLEEP}"
    container = shell("c", script, lifecycle=hook, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    volumes = [{"name": "v", "emptyDir": {}}]
    pod = node.pod("second", container, volumes=volumes, terminationGracePeriodSeconds=1)
    pod.start()
    # Where the second run's handler is faster than its container it sleeps for 30 s too.
    wait_until(lambda: pod.status().restarts == 1 and pod.status().ready, "its second run is ready", 90)
    pid = pod.containers["c"].pid
    for _ in range(30):
        assert pod.containers["c"].pid == pid, "it goes on"
        time.sleep(0.1)
