"""ConfigMaps and Secrets as a pod's containers have them: variables, files, and what is waited for."""

import base64
import errno
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.cluster.config_objects import ConfigMap, Secret
from testbed.lab.configs import Configs
from testbed.pods.pod import Pod
from tests.netns.pods import SLEEP, PodNode, execute, output, shell, started, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PodNode]:
    with PodNode(tmp_path) as made:
        yield made


@pytest.fixture
def configs(node: PodNode) -> Configs:
    made = Configs()
    node.lookup = made.find
    return made


def config_map(name: str, data: Mapping[str, str], namespace: str = "default") -> ConfigMap:
    metadata = {"name": name, "namespace": namespace}
    return ConfigMap.model_validate({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def secret(name: str, data: Mapping[str, bytes]) -> Secret:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return Secret.model_validate({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded})


def change(configs: Configs, pod: Pod, *objects: ConfigMap | Secret) -> None:
    """Put objects, and have the pod follow as the lab does."""
    configs.put(objects)
    pod.follow_configs()


def from_key(name: str, kind: str, of: str, key: str) -> dict[str, object]:
    return {"name": name, "valueFrom": {f"{kind}KeyRef": {"name": of, "key": key}}}


def mounted(name: str, *more: Mapping[str, object]) -> dict[str, object]:
    return shell("c", SLEEP, volumeMounts=[{"name": name, "mountPath": f"/{name}"}, *more])


def test_variables_have_values_of_config_maps_and_secrets(node: PodNode, configs: Configs) -> None:
    configs.put([config_map("web", {"color": "red", "SIZE": "5"}), secret("keys", {"token": b"s3\nret\xff"})])
    env = [from_key("COLOR", "configMap", "web", "color"), from_key("TOKEN", "secret", "keys", "token")]
    every = [{"prefix": "WEB_", "configMapRef": {"name": "web"}}]
    pod = started(node.pod("vars", shell("c", SLEEP, env=env, envFrom=every)))
    assert output(pod, "c", 'echo "$COLOR $WEB_color $WEB_SIZE"; printf "%s" "$TOKEN" | od -An -c') == (
        "red red 5\n   s   3  \\n   r   e   t 377\n"
    )
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
            assert b"s3\nret" not in (process / "cmdline").read_bytes()
    document = node.rundir / "pods" / "vars" / "c.json"
    assert document.stat().st_mode & 0o777 == 0o600


def test_a_container_waits_for_its_config_map_and_the_others_do_not(node: PodNode, configs: Configs) -> None:
    waiting = shell("waiting", SLEEP, env=[from_key("COLOR", "configMap", "web", "color")])
    pod = node.pod("half", waiting, shell("other", SLEEP))
    pod.start()
    wait_until(lambda: pod.containers["other"].pid is not None, "the other runs")
    status = pod.status()
    assert (status.state, status.phase, status.ready) == ("CreateContainerConfigError", "Pending", False)
    assert (status.containers[0].reason, status.containers[0].message) == (
        "CreateContainerConfigError",
        'configmap "web" not found',
    )
    assert node.messages.count(("pod/half", "Failed", 'Error: configmap "web" not found')) == 1
    change(configs, pod, config_map("web", {"size": "5"}))
    assert pod.status().containers[0].message == "couldn't find key color in ConfigMap default/web"
    change(configs, pod, config_map("web", {"color": "red"}))
    wait_until(lambda: pod.status().ready, "it has started")
    assert output(pod, "waiting", "echo $COLOR") == "red\n"
    assert pod.status().restarts == 0


def test_a_pod_waits_for_its_volume_and_starts_when_its_secret_comes(node: PodNode, configs: Configs) -> None:
    init = shell("first", "cp /keys/token /dev/shm/", volumeMounts=[{"name": "keys", "mountPath": "/keys"}])
    volumes = [{"name": "keys", "secret": {"secretName": "keys"}}]
    pod = node.pod("later", mounted("keys"), initContainers=[init], volumes=volumes)
    pod.start()
    why = 'MountVolume.SetUp failed for volume "keys": secret "keys" not found'
    wait_until(lambda: pod.status().why_not_ready == why, "it says what it waits for")
    assert (pod.status().state, pod.containers["c"].pid) == ("Init:0/1", None)
    assert node.messages.count(("pod/later", "FailedMount", why)) == 1
    change(configs, pod, secret("keys", {"token": b"s3cret"}))
    wait_until(lambda: pod.status().ready, "it has started")
    assert output(pod, "c", "cat /keys/token /dev/shm/token") == "s3crets3cret"
    assert not any("s3cret" in message for _, _, message in node.messages)


def test_a_changed_config_map_changes_files_and_no_variable(node: PodNode, configs: Configs) -> None:
    configs.put([config_map("web", {"page": "old", "gone": "x"})])
    volumes = [{"name": "web", "configMap": {"name": "web"}}]
    container = mounted("web", {"name": "web", "mountPath": "/etc/page", "subPath": "page"})
    container["env"] = [from_key("PAGE", "configMap", "web", "page")]
    pod = started(node.pod("fresh", container, volumes=volumes))
    look = "cat /web/page /etc/page; echo $PAGE; readlink /web/page; ls /web"
    assert output(pod, "c", look) == "oldoldold\n..data/page\ngone\npage\n"
    assert "Read-only file system" in execute(pod, "c", "echo x > /web/page").stderr
    assert "Read-only file system" in execute(pod, "c", "ln -sf /etc/passwd /web/..data").stderr
    change(configs, pod, config_map("web", {"page": "new", "more": "y"}))
    # A file that is mounted by subPath stays as it was, as in Kubernetes.
    assert output(pod, "c", look) == "newoldold\n..data/page\nmore\npage\n"
    configs.remove("ConfigMap", pod.key._replace(name="web"))
    pod.follow_configs()
    assert output(pod, "c", "cat /web/page") == "new"


@pytest.mark.parametrize("first", [True, False], ids=["at its start", "at a change"])
def test_files_that_could_not_be_written_are_written_later(
    node: PodNode, configs: Configs, monkeypatch: pytest.MonkeyPatch, *, first: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "..2026_01_01/page")

    monkeypatch.setattr("testbed.pods.pod.REFILL_EVERY_S", 0.1)
    configs.put([config_map("web", {"page": "old"})])
    pod = node.pod("full", mounted("web"), volumes=[{"name": "web", "configMap": {"name": "web"}}])
    why = 'MountVolume.SetUp failed for volume "web": No space left on device'
    if not first:
        started(pod)
    with monkeypatch.context() as patched:
        patched.setattr("testbed.pods.volumes.write_files", fail)
        if first:
            pod.start()
        change(configs, pod, config_map("web", {"page": "new"}))
        wait_until(lambda: ("pod/full", "FailedMount", why) in node.messages, "it says so")
        assert first or output(pod, "c", "cat /web/page") == "old"
    wait_until(lambda: pod.status().ready and output(pod, "c", "cat /web/page") == "new", "the file has changed")
    assert node.messages.count(("pod/full", "FailedMount", why)) == 1


def test_after_its_sandbox_died_a_pod_has_the_files_and_the_new_values(node: PodNode, configs: Configs) -> None:
    configs.put([config_map("web", {"page": "old"})])
    container = mounted("web")
    container["env"] = [from_key("PAGE", "configMap", "web", "page")]
    pod = started(node.pod("again", container, volumes=[{"name": "web", "configMap": {"name": "web"}}]))
    change(configs, pod, config_map("web", {"page": "new"}))
    assert output(pod, "c", "echo $PAGE") == "old\n"
    pause = pod.pause_pid
    assert pause is not None
    os.kill(pause, signal.SIGKILL)
    wait_until(lambda: pod.pause_pid not in (None, pause) and pod.status().ready, "it is ready again", 60)
    assert output(pod, "c", "cat /web/page; echo $PAGE") == "newnew\n"


def test_a_container_that_ends_after_its_config_map_has_gone_waits_for_it(node: PodNode, configs: Configs) -> None:
    configs.put([config_map("web", {"page": "old"})])
    container = shell("c", SLEEP, env=[from_key("PAGE", "configMap", "web", "page")])
    pod = started(node.pod("left", container))
    configs.remove("ConfigMap", pod.key._replace(name="web"))
    pid = pod.containers["c"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pod.status().state == "CreateContainerConfigError", "it waits")
    change(configs, pod, config_map("web", {"page": "new"}))
    wait_until(lambda: pod.status().ready, "it runs again")
    assert output(pod, "c", "echo $PAGE") == "new\n"
    assert pod.status().restarts == 1


def test_files_have_the_mode_and_the_group_that_is_asked_for(node: PodNode, configs: Configs) -> None:
    configs.put([secret("keys", {"a": b"1", "b": b"2"})])
    items = [{"key": "a", "path": "deep/a", "mode": 0o600}, {"key": "b", "path": "b"}]
    volumes = [{"name": "keys", "secret": {"secretName": "keys", "items": items, "defaultMode": 0o400}}]
    pod = started(node.pod("modes", mounted("keys"), volumes=volumes))
    look = "stat -L -c '%a %g %n' /keys/deep/a /keys/b; stat -f -c %T /keys"
    assert output(pod, "c", look) == "600 0 /keys/deep/a\n400 0 /keys/b\ntmpfs\n"
    context = {"runAsUser": 1000, "fsGroup": 2000}
    grouped = started(node.pod("grouped", mounted("keys"), volumes=volumes, securityContext=context))
    assert output(grouped, "c", f"{look}; cat /keys/deep/a /keys/b") == (
        "640 2000 /keys/deep/a\n440 2000 /keys/b\ntmpfs\n12"
    )


def test_a_pod_sees_objects_of_its_own_namespace_only(node: PodNode, configs: Configs) -> None:
    configs.put([config_map("web", {"page": "default"})])
    pod = node.pod("shop/web", mounted("web"), volumes=[{"name": "web", "configMap": {"name": "web"}}])
    pod.start()
    wait_until(lambda: 'configmap "web" not found' in pod.status().why_not_ready, "it waits")
    change(configs, pod, config_map("web", {"page": "shop"}, "shop"))
    wait_until(lambda: pod.status().ready, "it has started")
    assert output(pod, "c", "cat /web/page") == "shop"


def test_a_value_that_a_recipe_does_not_take_is_not_shown(node: PodNode, configs: Configs) -> None:
    configs.put([secret("keys", {"port": b"s3cret"})])
    pod = node.pod("port", {"name": "c", "image": "echo", "env": [from_key("PORT", "secret", "keys", "port")]})
    pod.start()
    wait_until(lambda: pod.status().state == "CreateContainerConfigError", "it waits")
    assert pod.status().why_not_ready == ("c: CreateContainerConfigError (PORT: the image does not accept its value)")
    assert not any("s3cret" in message for _, _, message in node.messages)
    change(configs, pod, secret("keys", {"port": b"8081"}))
    wait_until(lambda: pod.status().ready, "it listens")


def test_a_pod_that_waits_is_deleted_with_its_mounts(node: PodNode, configs: Configs) -> None:
    volumes = [{"name": "web", "configMap": {"name": "web"}}, {"name": "keys", "secret": {"secretName": "k"}}]
    configs.put([config_map("web", {"a": "1"})])
    pod = node.pod("short", mounted("web"), volumes=volumes)
    pod.start()
    wait_until(lambda: bool(pod.status().why_not_ready), "it waits")
    pod.delete(0.0)
    pod.follow_configs()
    mounts = Path("/proc/thread-self/mountinfo").read_text()
    assert f"{node.rundir}/pods/short" not in mounts
    assert not (node.rundir / "pods" / "short").exists()
