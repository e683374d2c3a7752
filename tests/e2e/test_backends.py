"""`up --backend`: the same cluster with packets that travel otherwise."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, kernel_has, lab_of, skip_without

BACKENDS = ("udp", "vxlan", "host-gw", "ipip", "wireguard")


@pytest.fixture(scope="module")
def vxlan_lab(_as_root: None) -> Iterator[Lab]:
    with lab_of("two_nodes", "--backend", "vxlan") as lab:
        yield lab


def test_every_pod_reaches_every_other_and_the_device_is_the_backends(vxlan_lab: Lab) -> None:
    assert all(pair["received"] == 1 for pair in vxlan_lab.json("ping"))
    node = vxlan_lab.node("node1")
    assert (node["backend"], node["device"], node["datapath"]) == ("vxlan", "flannel.1", "kernel")
    described = vxlan_lab.must("describe", "node", "node1")
    assert "name:     flannel.1" in described
    assert "mtu:      1450" in described
    assert f"{vxlan_lab.node('node2')['address']}:8472" in vxlan_lab.must("get", "routes", "node1")


def test_the_journal_has_the_commands_that_make_the_overlay(vxlan_lab: Lab) -> None:
    journal = vxlan_lab.run("node1", "cat", "/run/journal.jsonl")
    for words in ('"add", "flannel.1"', '"bridge", "fdb", "replace"', '"ip", "neigh", "replace"', '"onlink"'):
        assert words in journal


@pytest.mark.slow
def test_a_running_lab_keeps_its_backend_and_says_what_another_would_take(vxlan_lab: Lab) -> None:
    refused = vxlan_lab.up("two_nodes", "--backend", "host-gw")
    assert refused.code == 1
    assert "is running with the vxlan backend" in refused.err
    assert f"sudo testbed down --lab {vxlan_lab.name}" in refused.err
    for words in (("--backend", "vxlan"), ()):
        same = vxlan_lab.up("two_nodes", *words)
        assert same.code == 0
        assert "backend vxlan" in same.out


def test_an_overlay_device_that_somebody_deletes_is_made_again(vxlan_lab: Lab) -> None:
    before = vxlan_lab.run("node1", "cat", "/sys/class/net/flannel.1/address")
    vxlan_lab.run("node1", "ip", "link", "delete", "flannel.1")
    far = vxlan_lab.pod("shell2")["address"]
    vxlan_lab.handle.wait_until(lambda: vxlan_lab.pings("shell1", far), 20, "pods reach each other again")
    assert vxlan_lab.run("node1", "cat", "/sys/class/net/flannel.1/address") == before


@pytest.mark.parametrize("backend", ["wireguard", "ipip"])
def test_a_backend_that_the_kernel_lacks_is_refused_before_anything_is_made(no_lab: Lab, backend: str) -> None:
    if kernel_has(backend):
        pytest.skip(f"this kernel has {backend}")
    answer = no_lab.up("two_nodes", "--backend", backend)
    assert answer.code == 3
    assert answer.err.startswith(f"error: environment: kernel: {backend} (got ")


def test_an_unknown_backend_is_a_usage_error_that_lists_them(no_lab: Lab) -> None:
    answer = no_lab.up("two_nodes", "--backend", "gre")
    assert answer.code == 2
    assert "'host-gw'" in answer.err


@pytest.mark.slow
@pytest.mark.usefixtures("_as_root")
def test_without_an_overlay_device_every_part_is_still_labelled() -> None:
    with lab_of("two_nodes", "--backend", "host-gw") as lab:
        assert all(pair["received"] == 1 for pair in lab.json("ping"))
        assert lab.node("node1")["device"] is None
        described = lab.must("describe", "node", "node1")
        assert "none: packets of the host-gw backend leave by node1-eth0" in described
        assert "not counted" in described
        traced = lab.must("trace", "shell1", "shell2")
        assert "flannel" not in traced
        assert "answered in" in traced
        assert lab.must("graph", "-o", "json")


@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_node_without_peers_passes_its_check(backend: str, tmp_path: Path) -> None:
    alone = tmp_path / "alone.yaml"
    alone.write_text("nodes: [node1]\n")
    with lab_of(alone, "--backend", backend) as lab:
        assert lab.json("check")["well"]


@pytest.mark.slow
@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.row("C12")
def test_reaches_a_clusterip_service_across_nodes(backend: str) -> None:
    """flannel's e2e: «resolves and reaches a ClusterIP service across nodes»; here by its address."""
    skip_without(backend)
    with lab_of("nginx_tomcat", "--backend", backend) as lab:
        address = lab.json("get", "services", "nginx")["spec"]["clusterIP"]
        for source in ("tomcat", "node2", "client"):
            code = lab.run(source, "curl", "-s", "-m5", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}/")
            assert code == "200", source


OUTER_OF_BACKEND = {
    "udp": ("flannel0", "udp", 8285, 28),
    "vxlan": ("flannel.1", "udp", 8472, 50),
    "host-gw": (None, None, None, 0),
    "ipip": ("flannel.ipip", "ipip", None, 20),
    # 60, and what fills the echo request's 84 bytes up to a multiple of 16.
    "wireguard": ("flannel-wg", "udp", 51820, 60 + 12),
}


@pytest.mark.slow
@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_trace_of_each_backend_shows_its_own_hops_and_outer_headers(backend: str) -> None:
    skip_without(backend)
    device, protocol, port, overhead = OUTER_OF_BACKEND[backend]
    with lab_of("two_nodes", "--backend", backend) as lab:
        # All at once, at the first moment: wireguard's handshakes are over.
        lab.must("ping")
        traced = lab.json("trace", "shell1", "shell2")
        nodes = [str(lab.node(name)["address"]) for name in ("node1", "node2")]
    assert traced["outcome"] == "answered"
    for leg, (near, far) in (("request", nodes), ("reply", reversed(nodes))):
        hops = [hop for hop in traced["hops"] if hop["leg"] == leg]
        on_cables = [hop for hop in hops if hop["node"] == "s1" or hop["interface"].endswith("-eth0")]
        assert len(on_cables) == 4, hops
        outer = [hop["outer"] for hop in on_cables]
        if protocol is None:
            assert outer == [None] * 4
        else:
            assert {(one["src"], one["dst"], one["proto"], one["dport"]) for one in outer} == {
                (near, far, protocol, port)
            }
            assert {hop["outer"]["length"] - hop["inner"]["length"] for hop in on_cables} == {overhead}
        crossed = [hop["interface"] for hop in hops if hop["interface"].startswith("flannel")]
        assert crossed == ([] if device is None else [device] * 2)
