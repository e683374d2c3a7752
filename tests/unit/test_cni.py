"""CNI: the configuration list, requests made of it, and plugins' answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.cluster.cluster_document import CniSpec
from testbed.cluster.manifest import PodManifest
from testbed.cni.answer import Call, WrongAnswer, code_of, read_result, read_versions, why_failed
from testbed.cni.conflist import Conflist, WrongConflist, choose_version, collection, fill, read_conflist, request
from testbed.cni.files import wrong_files
from testbed.pods.cni_network import capabilities

BRIDGE = {"type": "bridge", "bridge": "cni7", "keyA": ["as", "it is"]}
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True, "bandwidth": False}, "args": {}, "cni.dev/x": 1}


def conflist(*plugins: dict[str, Any], **keys: object) -> Conflist:
    whole = {"cniVersion": "1.0.0", "name": "overlay", "plugins": plugins or [BRIDGE, PORTMAP], **keys}
    return read_conflist(json.dumps(whole))


def said(stdout: str, code: int = 0, stderr: str = "", failure: str = "") -> Call:
    return Call("ADD", "bridge", "{}", code, stdout, stderr, 0.01, failure)


def test_a_request_has_the_plugins_own_keys_the_version_and_the_previous_result() -> None:
    network = conflist()
    made = request(network, network.plugins[0], "1.0.0", {"portMappings": [1]}, {"ips": []})
    assert made == {**BRIDGE, "cniVersion": "1.0.0", "name": "overlay", "prevResult": {"ips": []}}


def test_a_plugin_gets_the_capabilities_that_it_declares_and_no_reserved_key() -> None:
    network = conflist()
    made = request(network, network.plugins[1], "1.0.0", {"portMappings": [1], "bandwidth": {}, "ipRanges": []})
    assert made == {
        "type": "portmap",
        "cniVersion": "1.0.0",
        "name": "overlay",
        "runtimeConfig": {"portMappings": [1]},
    }


def test_gc_lists_the_valid_attachments() -> None:
    network = conflist(cniVersion="1.1.0")
    made = collection(network, network.plugins[0], "1.1.0", [("web-1", "eth0")])
    assert made["cni.dev/valid-attachments"] == [{"containerID": "web-1", "ifname": "eth0"}]
    assert "runtimeConfig" not in made


def test_the_highest_version_that_every_plugin_supports_is_chosen() -> None:
    network = conflist(cniVersion="0.4.0", cniVersions=["1.0.0", "1.1.0", "9.0.0"])
    assert choose_version(network, {"bridge": ("0.4.0", "1.0.0"), "portmap": ("1.0.0", "1.1.0")}) == "1.0.0"
    with pytest.raises(WrongConflist, match=r"no version that every plugin supports .*portmap speaks 0\.2\.0"):
        choose_version(network, {"bridge": ("1.0.0",), "portmap": ("0.2.0",)})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[", "not JSON"),
        ("[]", "the file: "),
        ('{"name": "a b", "cniVersion": "1.0.0", "plugins": [{"type": "x"}]}', "name: "),
        ('{"name": "a", "plugins": [{"type": "x"}]}', "cniVersion: field required"),
        ('{"name": "a", "cniVersion": "1.0.0", "plugins": []}', "plugins: "),
        ('{"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "../x"}]}', "plugins.0.type: not a plugin's name"),
        ('{"name": "a", "cniVersion": "0.2.0", "plugins": [{"type": "x"}]}', "cniVersion: not spoken here (got 0.2.0"),
    ],
)
def test_a_wrong_conflist_is_one_line(text: str, what: str) -> None:
    with pytest.raises(WrongConflist) as refused:
        read_conflist(text)
    assert str(refused.value).startswith(what)
    assert "\n" not in str(refused.value)


def test_a_text_that_is_one_placeholder_becomes_the_nodes_value() -> None:
    given = {"mtu": "{mtu}", "ranges": [[{"subnet": "{subnet}"}]], "note": "not {mtu}", "other": "{x}"}
    assert fill(given, {"mtu": 1472, "subnet": "10.0.46.0/24"}) == {
        "mtu": 1472,
        "ranges": [[{"subnet": "10.0.46.0/24"}]],
        "note": "not {mtu}",
        "other": "{x}",
    }


def test_the_bridge_is_that_of_the_first_plugin_or_of_its_delegate() -> None:
    assert conflist().bridge == "cni7"
    assert conflist({"type": "bridge"}).bridge == "cni0"
    assert conflist({"type": "flannel", "delegate": {"bridge": "pods"}}).bridge == "pods"
    assert conflist({"type": "ptp"}).bridge is None


def test_a_result_tells_the_pods_addresses_from_others() -> None:
    result = read_result(
        said(
            json.dumps(
                {
                    "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
                    "ips": [{"address": "10.0.46.2/24", "interface": 2}, {"address": "10.9.9.9/24", "interface": 0}],
                }
            )
        )
    )
    assert result.node_links == ("cni0", "veth1")
    assert [str(one) for one in result.addresses] == ["10.0.46.2/24"]


@pytest.mark.parametrize(
    ("stdout", "what"),
    [
        ("hello", r"not JSON \(got hello\)"),
        ("", r"not JSON \(got nothing\)"),
        ('{"ips": [{"address": "x"}]}', "not a CNI result"),
    ],
)
def test_success_with_garbage_is_named(stdout: str, what: str) -> None:
    with pytest.raises(WrongAnswer, match=what):
        read_result(said(stdout))


def test_versions_are_those_of_the_answer() -> None:
    assert read_versions(said('{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}')) == ("0.4.0", "1.0.0")
    with pytest.raises(WrongAnswer, match="no supportedVersions"):
        read_versions(said("{}"))


def test_an_error_is_shown_as_it_comes() -> None:
    error = '{"cniVersion": "1.0.0", "code": 7, "msg": "no room", "details": "the pool is used up"}'
    assert why_failed(said(error, 1)) == "code 7: no room; the pool is used up"
    assert why_failed(said("", 1, stderr=error)) == "code 7: no room; the pool is used up"
    assert why_failed(said("", 2, stderr="a\nb\n")) == "exit code 2, and no CNI error (b)"
    assert why_failed(said("", 2)) == "exit code 2, and no CNI error (it printed nothing)"
    assert why_failed(said("", 0, failure="did not end")) == "did not end"
    assert (code_of(said(error, 1)), code_of(said("junk", 1))) == (7, None)


def test_host_ports_bandwidth_and_subnets_are_capability_arguments() -> None:
    ports = [
        {"containerPort": 80, "hostPort": 8080, "protocol": "UDP", "hostIP": "192.168.8.21"},
        {"containerPort": 81},
    ]
    annotations = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "fast"}
    manifest = PodManifest.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "annotations": annotations},
            "spec": {"containers": [{"name": "web", "image": "shell", "ports": ports}]},
        }
    )
    assert capabilities(manifest, ["10.0.46.0/24"]) == {
        "ipRanges": [[{"subnet": "10.0.46.0/24"}]],
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "192.168.8.21"}],
        "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 2**31 - 1},
        "io.kubernetes.cri.pod-annotations": annotations,
    }


@pytest.fixture
def files(tmp_path: Path) -> CniSpec:
    """Return good files; a test spoils them."""
    plugins, file = tmp_path / "plugins", tmp_path / "overlay.conflist"
    plugins.mkdir(mode=0o755)
    (plugins / "bridge").touch(mode=0o755)
    file.write_text(json.dumps({"cniVersion": "1.0.0", "name": "overlay", "plugins": [BRIDGE]}))
    for one in (tmp_path, plugins, plugins / "bridge"):
        one.chmod(0o755)
    file.chmod(0o644)
    return CniSpec.model_validate({"conflist": str(file), "plugins": str(plugins)})


def test_good_files_are_accepted(files: CniSpec) -> None:
    assert list(wrong_files(files, as_root=True)) == []


@pytest.mark.parametrize("place", ["plugins", "plugins/bridge", "overlay.conflist"])
def test_root_runs_nothing_that_others_may_write(files: CniSpec, tmp_path: Path, place: str) -> None:
    (tmp_path / place).chmod(0o777)
    wrong = list(wrong_files(files, as_root=True))
    assert wrong
    assert all(f"(got {tmp_path / place}; want chmod go-w {tmp_path / place})" in line for line in wrong)
    assert list(wrong_files(files, as_root=False)) == []


def test_a_missing_plugin_and_directory_are_named(files: CniSpec, tmp_path: Path) -> None:
    (tmp_path / "plugins" / "bridge").unlink()
    (tmp_path / "plugins").rmdir()
    assert list(wrong_files(files, as_root=True)) == [
        f"plugins: no such directory (got {tmp_path}/plugins; want one with the plugins, such as /usr/lib/cni)",
        f"plugins: no such plugin (got bridge; want a program in {tmp_path}/plugins)",
    ]
