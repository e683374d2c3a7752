"""`testbed commands`: the script that it prints builds the same network in an empty namespace."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.lab import Lab

DUMP = """
for name in $(ip netns list | cut -d' ' -f1 | sort); do
    echo "$name"
    ip -n "$name" -j -d link; ip -n "$name" -j -4 address; ip -n "$name" -j -4 route
done
"""
LAB_ITSELF = "echo lab; ip -j -d link; ip -j -4 address; ip -j -4 route\n"


def parsed(text: str) -> dict[str, Any]:
    """Return links with kind, MTU and bridge, addresses and routes by namespace."""
    lines = [line for line in text.splitlines() if line]
    return {
        lines[at]: {
            "links": sorted(
                (
                    link["ifname"],
                    link["mtu"],
                    link.get("master", ""),
                    link.get("linkinfo", {}).get("info_kind", ""),
                    "UP" in link["flags"],
                )
                for link in json.loads(lines[at + 1])
            ),
            "addresses": sorted(
                (link["ifname"], address["local"], address["prefixlen"])
                for link in json.loads(lines[at + 2])
                for address in link.get("addr_info", ())
            ),
            "routes": sorted(
                tuple(str(route.get(key, "")) for key in ("type", "dst", "gateway", "dev", "prefsrc", "metric"))
                for route in json.loads(lines[at + 3])
            ),
        }
        for at in range(0, len(lines), 4)
    }


@pytest.fixture(scope="module")
def replayed(two_nodes: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("commands") / "lab.sh"
    file.write_text(two_nodes.must("commands"))
    run = f"mount -t tmpfs tmpfs /run && sh -e {file} >/dev/null && {DUMP}"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--fork", "sh", "-c", run],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


@pytest.fixture(scope="module")
def original(two_nodes: Lab) -> dict[str, Any]:
    return parsed(two_nodes.testbed("shell", stdin=LAB_ITSELF + DUMP).out)


def test_script_builds_the_same_links_addresses_and_routes(replayed: dict[str, Any], original: dict[str, Any]) -> None:
    assert sorted(replayed) == sorted(original)
    for name, there in original.items():
        assert replayed[name] == there, name
    assert ("flannel0", 1472, "", "tun", True) in replayed["node1"]["links"]
    assert replayed["echo1"]["addresses"], "a pod has none"


def test_every_command_has_a_reason(two_nodes: Lab) -> None:
    changes = two_nodes.json("commands")
    assert len(changes) > 100
    assert [change for change in changes if not change["why"]] == []
    assert [change["at"] for change in changes] == sorted(change["at"] for change in changes)


def test_one_node_is_shown_as_one_types_it_there(two_nodes: Lab) -> None:
    shown = two_nodes.must("commands", "node1")
    assert "ip tuntap add dev flannel0 mode tun" in shown.splitlines()
    assert "ip netns" not in shown


def test_machine_without_changes_is_reported_with_those_that_have_some(two_nodes: Lab) -> None:
    answer = two_nodes.testbed("commands", "node9")
    assert answer.code == 1
    assert "no changes on node9 (there are changes on: " in answer.err


def test_script_describes_itself(two_nodes: Lab, tmp_path: Path) -> None:
    file = tmp_path / "lab.sh"
    file.write_text(two_nodes.must("commands"))
    assert subprocess.run(["sh", "-n", str(file)], check=False).returncode == 0
    assert file.read_text().startswith("#!/bin/sh\n# Every change that lab ")
