"""What agents warn of is seen where people look: in the status and in what is told of a node."""

import json
import re

import pytest

from tests.e2e.lab import Lab
from tests.waiting import wait_until

CONFIG_KEY = "/coreos.com/network/config"
SEEN_LIMIT_S = 20.0
"""Agents look every ten seconds."""


@pytest.mark.slow
@pytest.mark.row("F26")
def test_a_changed_config_is_reported_by_status_and_describe_until_it_is_restored(own_lab: Lab) -> None:
    def warned() -> list[str]:
        return [node["name"] for node in own_lab.json("status")["nodes"] if node["warnings"]]

    assert warned() == []
    assert "warning" not in own_lab.must("status")
    assert re.search(r"^Warnings: +none$", own_lab.must("describe", "node", "node1"), re.MULTILINE)
    before = own_lab.must("etcdctl", "--", "get", "--print-value-only", CONFIG_KEY).strip()
    changed = json.dumps({**json.loads(before), "SubnetLen": 25})
    own_lab.must("etcdctl", "--", "put", CONFIG_KEY, changed)
    wait_until(lambda: warned() == ["node1", "node2"], timeout_s=SEEN_LIMIT_S, what="both agents warn")
    status = own_lab.json("status")
    assert status["state"] == "ready", "a warning is no trouble yet"
    (warning,) = status["nodes"][0]["warnings"]
    assert "subnet_len 24 → 25" in warning
    assert own_lab.must("status").rstrip().endswith(f"warning: node1, node2: {warning}")
    assert f"Warnings:\n  {warning}\n" in own_lab.must("describe", "node", "node1")
    assert own_lab.json("get", "nodes", "node2")["testbed"]["warnings"] == [warning]
    own_lab.must("etcdctl", "--", "put", CONFIG_KEY, before)
    wait_until(lambda: warned() == [], timeout_s=SEEN_LIMIT_S, what="nobody warns any more")
