"""What a backend means for a lab, and a cluster with another one than its own."""

from dataclasses import replace

import pytest

from agent.errors import InvalidConfig
from agent.netconfig.config import parse_network_config
from testbed.cluster.overlay import overlay_of, with_backend
from testbed.cluster.spec import Cluster, find_cluster


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return find_cluster("two_nodes")


@pytest.mark.parametrize(
    ("backend", "device", "headers"),
    [
        ('{"Type":"udp"}', "flannel0", 28),
        ('{"Type":"vxlan"}', "flannel.1", 50),
        ('{"Type":"VXLAN","VNI":77}', "flannel.77", 50),
        ('{"Type":"host-gw"}', None, 0),
        ('{"Type":"ipip"}', "flannel.ipip", 20),
        ('{"Type":"wireguard"}', "flannel-wg", 80),
        ('{"Type":"alloc"}', None, 0),
    ],
)
def test_each_backend_has_its_device_and_headers(backend: str, device: str | None, headers: int) -> None:
    found = overlay_of(parse_network_config(f'{{"Network":"10.0.0.0/16","Backend":{backend}}}'.encode()))
    assert (found.device, found.headers) == (device, headers)


def test_alloc_connects_no_nodes_and_udp_needs_nothing_special(cluster: Cluster) -> None:
    alloc, udp, vxlan = (overlay_of(with_backend(cluster, kind).config) for kind in ("alloc", "udp", "vxlan"))
    assert (alloc.connects_nodes, udp.connects_nodes) == (False, True)
    assert (udp.needs, vxlan.needs) == (None, "the vxlan backend")
    assert not udp.has_sessions
    wireguard = with_backend(cluster, "wireguard")
    assert overlay_of(wireguard.config).has_sessions


def test_another_backend_takes_the_place_of_the_files_own_options_and_all(cluster: Cluster) -> None:
    changed = with_backend(cluster, "host-gw")
    assert changed.config.backend_type == "host-gw"
    assert changed.network["Network"] == cluster.network["Network"]
    assert changed.text == cluster.text


def test_the_same_backend_keeps_the_files_options(cluster: Cluster) -> None:
    assert with_backend(cluster, "udp") is cluster


def test_a_backend_that_does_not_go_with_the_network_is_refused(cluster: Cluster) -> None:
    dual = with_backend(cluster, "vxlan")
    text = dual.network_json[:-1] + ',"EnableIPv6":true,"IPv6Network":"fd00::/48"}'
    network = {**dual.network, "EnableIPv6": True, "IPv6Network": "fd00::/48"}

    with pytest.raises(InvalidConfig, match="udp backend carries IPv4 only"):
        with_backend(replace(dual, network=network, network_json=text), "udp")
