"""A stand-in needs neither data nor settings of the program that it stands for; real programs do."""

import pytest

from testbed.cluster.image_names import ImageRule
from testbed.cluster.images import Values
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.pods.pod_config import MissingConfig, files_of, no_configs, values_of

RULES = (ImageRule("*", "echo"),)


def read(spec: str, rules: tuple[ImageRule, ...] = RULES) -> Cluster:
    text = f"nodes: [node1]\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n"
    return read_cluster(text.encode(), "c.yaml", rules)


KINDS = ("readiness", "startup", "liveness")
MOUNT = "volumeMounts: [{name: v, mountPath: /data}]"


@pytest.mark.parametrize(
    "volume",
    [
        "persistentVolumeClaim: {claimName: x}",
        "nfs: {server: a}",
        "hostPath: {path: /var/lib/docker/containers}",
        "projected: {sources: [{secret: {name: a}}, {serviceAccountToken: {path: token}}]}",
    ],
)
def test_a_volume_that_only_stand_ins_mount_is_an_empty_directory(volume: str) -> None:
    found = read(f"{{volumes: [{{name: v, {volume}}}], containers: [{{name: c, image: mysql, {MOUNT}}}]}}")
    assert found.pods[0].spec.volumes[0].empty_dir is not None
    assert "an empty directory: only stand-ins mount it" in str(found.warnings[0])


def test_a_volume_that_a_real_program_mounts_is_refused() -> None:
    volume = "{name: v, persistentVolumeClaim: {claimName: x}}"
    containers = f"[{{name: c, image: mysql, {MOUNT}}}, {{name: d, image: nginx, {MOUNT}}}]"
    with pytest.raises(SpecError) as caught:
        read(f"{{volumes: [{volume}], containers: {containers}}}")
    assert len(caught.value.problems) == 1
    assert "persistentVolumeClaim: not supported here" in str(caught.value)


def test_a_supported_volume_is_kept() -> None:
    found = read(f"{{volumes: [{{name: v, configMap: {{name: x}}}}], containers: [{{name: c, image: a, {MOUNT}}}]}}")
    assert found.pods[0].spec.volumes[0].config_map is not None


def test_files_of_the_machine_are_kept_for_a_real_program() -> None:
    containers = f"[{{name: c, image: mysql, {MOUNT}}}, {{name: d, image: shell, {MOUNT}}}]"
    found = read(f"{{volumes: [{{name: v, hostPath: {{path: /srv}}}}], containers: {containers}}}")
    assert found.pods[0].spec.volumes[0].host_path is not None


def test_foreign_variables_are_left_out_and_those_of_fields_are_kept() -> None:
    other = "{name: A, valueFrom: {fileKeyRef: {path: a, key: b, volumeName: v}}}"
    field = "{name: B, valueFrom: {fieldRef: {fieldPath: status.podIP}}}"
    found = read(f"{{containers: [{{name: c, image: mysql, env: [{other}, {field}]}}]}}")
    variables = found.pods[0].spec.containers[0].env
    assert [variable.value_from is None for variable in variables] == [True, False]
    assert sum("a stand-in needs no variables" in str(warning) for warning in found.warnings) == 1
    with pytest.raises(SpecError) as caught:
        read(f"{{containers: [{{name: c, image: nginx, env: [{other}]}}]}}")
    assert len(caught.value.problems) == 1


def test_a_stand_in_waits_for_no_config_map_and_no_secret() -> None:
    env = "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}], envFrom: [{configMapRef: {name: x}}]"
    volume = "{name: v, configMap: {name: x}}"
    containers = f"{{name: c, image: mysql, {env}, {MOUNT}}}"
    pod = read(f"{{volumes: [{volume}], containers: [{containers}]}}").pods[0]
    assert values_of(pod, pod.spec.containers[0], {}, no_configs) == Values({}, {})
    assert files_of(pod, pod.spec.volumes[0], no_configs) == {}
    pod = read(f"{{volumes: [{volume}], containers: [{containers}, {{name: d, image: shell, {MOUNT}}}]}}").pods[0]
    with pytest.raises(MissingConfig):
        files_of(pod, pod.spec.volumes[0], no_configs)


def test_a_probe_s_initial_delay_is_ignored_with_a_warning_for_a_stand_in_alone() -> None:
    probes = ", ".join(f"{kind}Probe: {{tcpSocket: {{port: 80}}, initialDelaySeconds: 9}}" for kind in KINDS)
    found = read(f"{{containers: [{{name: a, image: mysql, {probes}}}, {{name: b, image: nginx, {probes}}}]}}")
    about = [str(warning) for warning in found.warnings if "initialDelaySeconds" in str(warning)]
    assert [line.partition("spec.")[2] for line in about] == [
        f"containers[0].{kind}Probe.initialDelaySeconds: ignored: a stand-in answers at once" for kind in KINDS[:2]
    ]


@pytest.mark.parametrize("spec", ["x", "{containers: x}", "{containers: [x, {image: 3}], volumes: [x, {name: v}]}"])
def test_nonsense_is_left_to_the_parser_that_complains(spec: str) -> None:
    with pytest.raises(SpecError):
        read(spec)
