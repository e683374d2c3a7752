"""ConfigMaps and Secrets as they are read, and what pods have from them."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.config_objects import ConfigMap, ConfigObject, Secret
from testbed.cluster.environment import ConfigKind
from testbed.cluster.images import Values, program
from testbed.cluster.manifest import PodManifest
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.pods import config_volume
from testbed.pods.config_volume import write_files
from testbed.pods.pod_config import MissingConfig, VolumeFile, files_of, values_of


def read(*documents: str) -> Cluster:
    return read_cluster("\n---\n".join(["nodes: [node1]", *documents]).encode(), "c.yaml")


def head(kind: str, name: str = "web") -> str:
    return f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"


def config_map(name: str = "web", namespace: str = "default", **data: str) -> ConfigMap:
    metadata = {"name": name, "namespace": namespace}
    return ConfigMap.model_validate({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def secret(name: str = "keys", **data: bytes) -> Secret:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return Secret.model_validate({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded})


def pod(container: Mapping[str, Any], volumes: list[object] | None = None, namespace: str = "default") -> PodManifest:
    spec = {"containers": [{"name": "c", "image": "shell", **container}], "volumes": volumes or []}
    metadata = {"name": "p", "namespace": namespace}
    return PodManifest.model_validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


class Store:
    def __init__(self, *objects: ConfigObject) -> None:
        self._objects = {(one.kind, one.key): one for one in objects}

    def find(self, kind: ConfigKind, key: ObjectKey) -> ConfigObject | None:
        return self._objects.get((kind, key))


def values(made: PodManifest, *objects: ConfigObject) -> Values:
    return values_of(made, made.spec.containers[0], {}, Store(*objects).find)


def from_key(name: str, kind: str, of: str, key: str, **more: object) -> dict[str, object]:
    return {"name": name, "valueFrom": {f"{kind}KeyRef": {"name": of, "key": key, **more}}}


def test_names_and_keys_may_have_points() -> None:
    found = read(head("ConfigMap", "web.conf") + "data: {nginx.conf: a, .hidden: b, UPPER_1: c}").configs[0]
    assert found.content == {"nginx.conf": b"a", ".hidden": b"b", "UPPER_1": b"c"}


def test_binary_data_are_files_and_no_variables() -> None:
    found = read(head("ConfigMap") + "data: {a: x}\nbinaryData: {b: AAEC}").configs[0]
    assert (found.content, found.variables) == ({"a": b"x", "b": b"\0\1\2"}, {"a": b"x"})


def test_plain_text_of_a_secret_goes_before_its_data_and_is_shown_there() -> None:
    found = read(head("Secret") + "data: {a: YQ==, b: 'Yg==\n\n  '}\nstringData: {a: new}").configs[0]
    assert found.content == {"a": b"new", "b": b"b"}
    shown = found.to_manifest()
    assert (shown["data"], shown["type"], "stringData" in shown) == ({"a": "bmV3", "b": "Yg=="}, "Opaque", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (head("ConfigMap") + "data: {a: 5}", "data.a: wrong type (got something else than text; want text, in quotes)"),
        (head("ConfigMap") + "data: {'a b': x}", "data.a b: not a key (got a b; want letters"),
        (head("ConfigMap") + "data: {..a: x}", "data...a: not a key"),
        (head("ConfigMap") + "data: {a: x}\nbinaryData: {a: AA==}", "binaryData.a: a key twice (got a, data has it"),
        (head("ConfigMap") + "binaryData: {a: '?'}", "binaryData.a: not base64 (got 1 characters; want base64"),
        (head("ConfigMap", "A") + "data: {}", "metadata.name: not a name (got A;"),
        (head("Secret") + "data: {a: hunter2!}", "data.a: not base64 (got 8 characters; want base64; plain text goes"),
        (
            head("Secret") + "stringData: {pin: 1234}",
            "stringData.pin: wrong type (got something else than text; want",
        ),
        (head("Secret") + "type: kubernetes.io/tls\ndata: {tls.crt: YQ==}", "type: keys of this type are missing"),
        (head("Secret") + f"stringData: {{a: &x {'x' * (1 << 19)}, b: *x, c: z}}", "data: too much data (got 1048577"),
    ],
)
def test_mistakes_are_named_without_a_secret_s_value(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert said in str(caught.value)
    assert len(caught.value.problems) == 1
    assert not any(value in str(caught.value) for value in ("hunter2", "1234"))


def test_a_secret_does_not_show_its_values_where_it_is_printed_by_chance() -> None:
    text = repr(secret(a=b"hunter2"))
    assert "hunter2" not in text
    assert base64.b64encode(b"hunter2").decode() not in text


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("{name: v, configMap: {name: a}, secret: {secretName: b}}", "a volume has one source (got configMap, secret"),
        ("{name: v, configMap: {name: a, defaultMode: 01000}}", "defaultMode: out of range (got 512; want 0 to 511)"),
        ("{name: v, configMap: {name: a, items: [{key: k, path: ../x}]}}", "path: not a path inside the volume"),
        ("{name: v, configMap: {name: a, items: [{key: k, path: ..x}]}}", "path: not a file of the volume"),
        ("{name: v, projected: {sources: [{}]}}", "a projection has one source (got none"),
    ],
)
def test_a_volume_s_mistakes_are_named(spec: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(head("Pod") + f"spec: {{volumes: [{spec}], containers: [{{name: c, image: shell}}]}}")
    assert said in str(caught.value)


def test_variables_have_values_of_keys_and_literal_ones_go_before_whole_objects() -> None:
    env = [
        from_key("A", "configMap", "web", "color"),
        from_key("B", "secret", "keys", "token"),
        {"name": "N", "value": "me"},
    ]
    made = pod(
        {"env": env, "envFrom": [{"prefix": "P_", "configMapRef": {"name": "web"}}, {"secretRef": {"name": "keys"}}]}
    )
    found = values(made, config_map(color="red", N="other"), secret(token=b"\xff", N=b"third"))
    assert found.by_name == {"A": "red", "B": "\udcff"}
    assert found.from_objects == {"P_color": "red", "P_N": "other", "token": "\udcff", "N": "third"}
    env_of = program(made.spec.containers[0], found).env
    assert (env_of["N"], env_of["A"], env_of["P_N"]) == ("me", "red", "other")


def test_a_value_of_an_object_is_taken_as_it_is() -> None:
    made = pod(
        {
            "env": [from_key("A", "configMap", "web", "a"), {"name": "B", "value": "$(A) $(C)"}],
            "envFrom": [{"configMapRef": {"name": "web"}}],
        }
    )
    env = program(made.spec.containers[0], values(made, config_map(a="$(B)", C="c"))).env
    assert (env["A"], env["B"]) == ("$(B)", "$(B) c")


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"env": [from_key("A", "configMap", "none", "k")]}, 'configmap "none" not found'),
        ({"env": [from_key("A", "secret", "none", "k")]}, 'secret "none" not found'),
        ({"env": [from_key("A", "configMap", "web", "k")]}, "couldn't find key k in ConfigMap default/web"),
        ({"envFrom": [{"secretRef": {"name": "none"}}]}, 'secret "none" not found'),
        ({"env": [from_key("A", "secret", "keys", "nul")]}, "variable A: a NUL character"),
    ],
)
def test_a_missing_object_is_reported_in_kubernetes_terms(container: dict[str, object], said: str) -> None:
    with pytest.raises(MissingConfig, match=said):
        values(pod(container), config_map(color="red"), secret(nul=b"a\0b"))


def test_what_is_optional_or_for_a_stand_in_is_not_waited_for() -> None:
    env = [from_key("A", "configMap", "none", "k", optional=True), from_key("B", "secret", "keys", "k", optional=True)]
    made = pod({"env": env, "envFrom": [{"secretRef": {"name": "none", "optional": True}}]})
    assert values(made, secret(a=b"a")) == Values({}, {})
    assert "A" not in program(made.spec.containers[0], values(made)).env


def test_objects_of_another_namespace_are_not_found() -> None:
    made = pod({"env": [from_key("A", "configMap", "web", "color")]}, namespace="shop")
    assert values(made, config_map(namespace="shop", color="red")).by_name == {"A": "red"}
    with pytest.raises(MissingConfig, match='configmap "web" not found'):
        values(made, config_map(color="red"))


def test_files_are_keys_or_the_items_of_the_volume() -> None:
    items = [{"key": "a", "path": "deep/name", "mode": 0o400}]
    volumes: list[object] = [
        {"name": "all", "configMap": {"name": "web"}},
        {"name": "some", "secret": {"secretName": "keys", "items": items, "defaultMode": 0o440}},
        {"name": "both", "projected": {"sources": [{"configMap": {"name": "web"}}, {"secret": {"name": "keys"}}]}},
        {"name": "none", "configMap": {"name": "none", "optional": True}},
        {"name": "gone", "secret": {"secretName": "none"}},
        {"name": "key", "configMap": {"name": "web", "items": [{"key": "x", "path": "x"}]}},
    ]
    made = pod({}, volumes)
    store = Store(config_map(a="1"), secret(a=b"2", b=b"3"))
    all_of, some, both, none, gone, key = made.spec.volumes
    assert files_of(made, all_of, store.find) == {"a": VolumeFile(b"1", 0o644)}
    assert files_of(made, some, store.find) == {"deep/name": VolumeFile(b"2", 0o400)}
    assert files_of(made, both, store.find) == {"a": VolumeFile(b"2", 0o644), "b": VolumeFile(b"3", 0o644)}
    assert files_of(made, none, store.find) == {}
    with pytest.raises(MissingConfig, match='secret "none" not found'):
        files_of(made, gone, store.find)
    with pytest.raises(MissingConfig, match="configmap web references non-existent config key: x"):
        files_of(made, key, store.find)


def test_files_of_a_volume_change_all_at_once(tmp_path: Path) -> None:
    first = {"a": VolumeFile(b"1", 0o600), "d/b": VolumeFile(b"2", 0o644), "d/c": VolumeFile(b"3", 0o644)}
    assert write_files(tmp_path, first, None)
    assert not write_files(tmp_path, first, None)
    before = (tmp_path / "..data").readlink()
    assert (tmp_path / "d" / "b").read_bytes() == b"2"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert write_files(tmp_path, {"d/b": VolumeFile(b"4", 0o644), "e": VolumeFile(b"5", 0o644)}, None)
    assert (tmp_path / "..data").readlink() != before
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..2")) == ["..data", "d", "e"]
    assert [(tmp_path / name).read_bytes() for name in ("d/b", "e")] == [b"4", b"5"]
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("..2")]) == 1


def test_files_of_a_volume_whose_change_failed_half_way_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(place: Path, target: str) -> None:
        if place.name == "b":
            raise OSError("no space")
        link(place, target)

    link = config_volume._link
    write_files(tmp_path, {"a": VolumeFile(b"1", 0o644)}, None)
    wanted = {"b": VolumeFile(b"2", 0o644)}
    with monkeypatch.context() as patched:
        patched.setattr(config_volume, "_link", fail)
        with pytest.raises(OSError, match="no space"):
            write_files(tmp_path, wanted, None)
    assert write_files(tmp_path, wanted, None)
    assert (tmp_path / "b").read_bytes() == b"2"
    data = (tmp_path / "..data").readlink().name
    assert {path.name for path in tmp_path.iterdir()} == {"..data", data, "b"}
    assert not write_files(tmp_path, wanted, None)
