"""The flags of flanneld with which a unit file for it starts our agent too: choice of interface, addresses, routes."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Underlay, run, wait_until
from tests.netns.overlay import lines, network, on

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        found = Underlay(tmp_path, f"di{os.getpid()}-", undo)
        found.start_etcd()
        found.write_config(network({"Type": "vxlan"}))
        yield found


@pytest.mark.parametrize(
    "flags",
    [
        ("--iface-regex=^192\\.168\\.8\\.", "--iface="),
        ("--iface=nope", "--iface-regex=eth"),
        ("--iface-can-reach=192.168.8.11", "--iface="),
        ("-iface=192.168.8.227",),
    ],
)
@pytest.mark.row("C6")
def test_the_underlay_is_found_as_flanneld_finds_it(underlay: Underlay, flags: tuple[str, ...]) -> None:
    node = underlay.agent("node", "192.168.8.227", "--bridge=", *flags)
    underlay.ip(node.netns, "link add other type bridge")
    underlay.ip(node.netns, "address add 172.16.0.1/24 dev other")
    node.wait_ready()
    assert "dev eth0" in on(node, "ip -d link show flannel.1")


@pytest.mark.row("C6")
def test_variables_of_a_flanneld_unit_file_do_the_same(underlay: Underlay) -> None:
    node = underlay.agent("node", "192.168.8.227", "--bridge=", start=False)
    variables = ("FLANNELD_IFACE=eth0", "FLANNELD_PUBLIC_IP=192.168.8.99", "FLANNELD_IP_BLACKHOLE_ROUTE=true")
    flags = [word for word in node.argv if not word.startswith("--iface=")]
    node.argv = (*flags[:5], *variables, *flags[5:])
    node.start()
    underlay.undo.callback(node.end)
    node.wait_ready()
    (value,) = underlay.leases().values()
    assert json.loads(value)["PublicIP"] == "192.168.8.99"
    assert f"blackhole {node.subnet()} metric 4278198272" in lines(on(node, "ip route"))


def test_the_blackhole_comes_back_and_goes_with_cleanup(underlay: Underlay) -> None:
    node = underlay.agent("node", "192.168.8.227", "--ip-blackhole-route")
    node.wait_ready()
    hole = f"blackhole {node.subnet()} metric 4278198272"
    on(node, f"ip route delete {hole}")
    wait_until(lambda: hole in lines(on(node, "ip route")), 5, "it is there again", lambda: node.log)
    node.end()
    at = node.argv.index("agent") + 1
    run(*node.argv[:at], "cleanup", *node.argv[at:])
    assert not re.search("blackhole|unreachable|flannel", on(node, "ip route"))


@pytest.mark.parametrize("backend", ["udp", "vxlan"])
def test_the_rights_in_the_unit_file_are_enough(underlay: Underlay, backend: str) -> None:
    unit = (Path(__file__).parents[2] / "docs" / "overlay-agent.service").read_text()
    (rights,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    kept = ",".join("+" + right.removeprefix("CAP_").lower() for right in rights.split())
    underlay.write_config(network({"Type": backend}))
    node = underlay.agent("node", "192.168.8.227", start=False)
    node.argv = (*node.argv[:4], "setpriv", f"--bounding-set=-all,{kept}", "--no-new-privs", *node.argv[4:])
    node.start()
    underlay.undo.callback(node.end)
    node.wait_ready()
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    assert re.search(r"^CapBnd:\s+0*1000$", status, re.MULTILINE), "CAP_NET_ADMIN alone"
    assert "docker0" in on(node, "ip -br address")
    assert "masquerade" in on(node, "nft list ruleset")
