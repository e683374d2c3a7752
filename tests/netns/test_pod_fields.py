"""Fields of pods as their containers see them: variables of the pod's own fields, host aliases, startup probes."""

from collections.abc import Iterator

import pytest

from tests.netns.pods import SLEEP, PodNode, output, shell, started, wait_until

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


def test_host_aliases_are_lines_of_every_container_s_hosts(node: PodNode) -> None:
    aliases = [{"ip": "10.1.2.3", "hostnames": ["foo.remote", "bar"]}]
    pod = started(node.pod("aliases", shell("a", SLEEP), shell("b", SLEEP), hostAliases=aliases))
    for container in ("a", "b"):
        assert output(pod, container, "tail -1 /etc/hosts; getent hosts bar") == (
            "10.1.2.3 foo.remote bar\n10.1.2.3        foo.remote bar\n"
        )


def test_other_probes_wait_until_the_startup_probe_has_succeeded(node: PodNode) -> None:
    container = shell(
        "c",
        SLEEP,
        startupProbe={"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 60},
        livenessProbe={"exec": {"command": ["cat", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1},
    )
    pod = node.pod("slow", container)
    pod.start()
    wait_until(lambda: pod.containers["c"].pid is not None, "it runs")
    wait_until(lambda: node.events.count(("pod/slow", "Unhealthy")) >= 1, "the startup probe has failed")
    assert not pod.status().ready
    output(pod, "c", "touch /tmp/up")
    wait_until(lambda: pod.status().ready, "the startup probe has succeeded", 15)
    assert pod.status().restarts == 0


def test_a_container_that_never_starts_up_is_restarted(node: PodNode) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    pod = node.pod("never", shell("c", SLEEP, startupProbe=probe), terminationGracePeriodSeconds=1)
    pod.start()
    wait_until(lambda: pod.status().restarts > 0, "it is restarted", 20)
    assert ("pod/never", "Killing") in node.events
